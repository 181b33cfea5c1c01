"""What `benchmarks.serve` measures and `benchmarks.serve_simulated` computes: one load, served in three ways.

load.py      who asks for what, and when
clock.py     the time as a way sees it: the machine's, or a simulation's
turns.py     one batch after the other: what serving one at a time and request-level batching have in common
ways.py      the three ways on real engines
estimates.py seconds that GPUs take, from arithmetic
simulate.py  the three ways on such a GPU, step-level batching through the service's own scheduler
figures.py   latency, throughput, fairness and occupancy of what was served
plot.py      latency against load
overhead.py  what HTTP adds
"""
