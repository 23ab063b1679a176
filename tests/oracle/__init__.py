"""Every op once more, in float64 NumPy, slow and obvious. Imports nothing of striate, shares no trick with it.

Each function takes float64 arrays and the attributes of the op of the same name and returns the exact formula's value;
`bound` says how far from it a floating-point result may lie.
"""
