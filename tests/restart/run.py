"""Restarts and crashes of the broker: run.py PROGRAM GENERATIONS [SEED]"""

import random
import sys

import captures
import channels
import crashes
import scenarios
import streams
import waiting

if __name__ == "__main__":
    program, generations = sys.argv[1], int(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
    scenarios.run(program)
    waiting.run(program)
    channels.run(program)
    print("seed", seed)
    captures.run(program, min(generations // 4 + 8, 400), seed)
    crashes.run(program, generations, seed)
    streams.run(program, generations, seed)
