"""A server near its limit for a long time, with clients that misbehave: `benchmarks.soak`.

wire.py     HTTP on bare connections, which can be cut anywhere
mix.py      what is asked for
hostile.py  what nobody should send
judging.py  whether an answer is the right one
ledger.py   what was sent, and what became of it
deeds.py    one request each, and what is done to it
process.py  the server, and what it holds
run.py      how much it can do, a stream near that, and its end
slope.py    whether something grows
verdict.py  what a run comes to
"""
