"""gpu_lengths.py - the 100 ragged lengths of every GPU measurement here."""
import math
import random


def ragged_lengths():
    """24..512 tokens, lognormal around 160, seed 1: 17,996 together; as in gpu_engine.c."""
    rng = random.Random(1)
    return [min(512, max(24, int(rng.lognormvariate(math.log(160), 0.6)))) for _ in range(100)]
