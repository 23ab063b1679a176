"""Programs: a recorded pass with nothing left to decide, run as one call into the core."""

from striate.compile.program import Program, compile

__all__ = ["Program", "compile"]
