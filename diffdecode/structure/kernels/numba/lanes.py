"""Numbers that one vector holds, by their type; a dual number is a value and its derivative."""

FLOAT32_LANES, FLOAT64_LANES, DUAL_LANES = 16, 8, 4
