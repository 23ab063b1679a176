"""Programs: a recorded pass, or a whole training step, with nothing left to decide, run as one call into the core."""

from striate.compile.explain import Explanation, Row
from striate.compile.file import load_program
from striate.compile.program import Program, compile
from striate.compile.step import TrainingStep, VerifyError, compile_step

__all__ = ["Explanation", "Program", "Row", "TrainingStep", "VerifyError", "compile", "compile_step", "load_program"]
