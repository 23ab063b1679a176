"""Laws every op obeys, one file a law, each over every case."""
