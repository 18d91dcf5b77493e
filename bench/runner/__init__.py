"""The parts of bench/run: whole programs, measured over kernel TCP and over loopfast in turn.

process.py   starting, pinning, waiting for and stopping programs
lanes.py     what "kernel" and "loopfast" mean: how each side of a pair is started
witness.py   asks the kernel, not loopfast, which way the bytes went
noise.py     how much of the machine others used meanwhile
programs.py  the small programs of bench/programs
redis.py     redis-server with redis-benchmark
nginx.py     nginx with wrk
idle.py      processor time and memory of connections that are silent
rows.py      the table: what is measured, what it must reach
report.py    medians, ratios, verdicts; JSON and markdown
"""
