"""The tests of striate: `oracle` says what is right, `cases` what to try, `laws` what must hold."""
