"""What the tests of real programs share: starting programs with and without loopfast, waiting for a
condition with an end, asking which lane a connection is on, and looking for what was left over.

    case.py       the frame of a test script: needs, network namespace, test case with clean-up
    process.py    one running program: its command, output, end
    observe.py    lanes, descriptors, mappings and socket names, as the kernel and `loopfast status` show them
    wait.py       waiting for a condition, never longer than a given time
    redis.py      a Redis client over a plain socket
    compared.py   one scenario over kernel TCP, with loopfast on both ends, on the server only, on the client only
    checked.py    streams of bytes that one can check at any offset

A script is an unconditional test: it fails, or it says which program is missing and ends with status 77.
"""
