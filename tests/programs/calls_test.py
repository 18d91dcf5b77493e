#!/usr/bin/env python3
"""Calls between processes: gRPC's C++ core (its own polling engine, HTTP/2 with its windows, threads that take turns
in epoll), and the distribution of Erlang (schedulers that share a poll set, one-shot interest, gathered writes of
fragments, a busy port that suspends who sends)."""

import subprocess
import sys
import unittest
from pathlib import Path

from harness.case import free_port, main
from harness.compared import LANES, Compared, Lane, scaled
from harness.process import stacks
from harness.wait import TimeLimit, until

GRPC_SERVER = """
import concurrent.futures, hashlib, sys, grpc
def sum_of(request, context): return hashlib.sha256(request).hexdigest().encode()
def parts(request, context):
    size, count = map(int, request.split())
    for number in range(count): yield b"%d " % number + b"p" * size
def sink(requests, context):
    digest = hashlib.sha256()
    for request in requests: digest.update(request)
    return digest.hexdigest().encode()
def echo(requests, context): yield from requests
class Handler(grpc.GenericRpcHandler):
    def service(self, call):
        return {"/t/sum": grpc.unary_unary_rpc_method_handler(sum_of),
                "/t/parts": grpc.unary_stream_rpc_method_handler(parts),
                "/t/sink": grpc.stream_unary_rpc_method_handler(sink),
                "/t/echo": grpc.stream_stream_rpc_method_handler(echo)}[call.method]
server = grpc.server(concurrent.futures.ThreadPoolExecutor(8), handlers=[Handler()],
                     options=[("grpc.max_receive_message_length", -1)])
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
sys.stdin.read()
server.stop(5).wait()
"""

GRPC_CLIENT = """
import hashlib, random, sys, threading, grpc
rounds = int(sys.argv[2])
options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
def sha(data): return hashlib.sha256(data).hexdigest().encode()
def use(seed):
    rng = random.Random(seed)
    with grpc.insecure_channel("127.0.0.1:" + sys.argv[1], options=options) as channel:
        for _ in range(rounds):
            data = rng.randbytes(rng.choice((0, 1, 3000, 70_000, 1_000_000)))
            assert channel.unary_unary("/t/sum")(data, timeout=60) == sha(data)
        got = list(channel.unary_stream("/t/parts")(b"9000 %d" % rounds, timeout=60))
        assert got == [b"%d " % number + b"p" * 9000 for number in range(rounds)]
        sent = [rng.randbytes(rng.randrange(30_000)) for _ in range(rounds)]
        assert channel.stream_unary("/t/sink")(iter(sent), timeout=60) == sha(b"".join(sent))
        assert list(channel.stream_stream("/t/echo")(iter(sent), timeout=60)) == sent
        # One that is given up with its bytes under way, and one after it.
        call = channel.unary_stream("/t/parts")(b"50000 1000", timeout=60)
        next(call); call.cancel()
        assert channel.unary_unary("/t/sum")(b"after", timeout=60) == sha(b"after")
    done.append(seed)
done = []
threads = [threading.Thread(target=use, args=(seed,)) for seed in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(done), rounds)
"""

ERLANG_SERVER = """
Echo = fun Echo() -> receive
    {From, stop} -> From ! stopped, init:stop();
    {From, Number, Data} -> From ! {Number, Data}, Echo()
end end,
register(echo, spawn(Echo)).
"""

ERLANG_CLIENT = """
There = {echo, 'server@127.0.0.1'},
Count = %d,
true = net_kernel:connect_node('server@127.0.0.1'),
Self = self(),
Data = fun(Number) -> binary:copy(<<Number:32>>, element(Number rem 6 + 1, {0, 1, 100, 5000, 30000, 1})) end,
Talk = fun(First) -> spawn_link(fun() ->
    [begin
        There ! {self(), Number, Data(Number)},
        receive {Number, Back} -> Back = Data(Number) end
    end || Number <- lists:seq(First, First + Count)],
    Self ! {done, First}
end) end,
[Talk(First) || First <- [0, 1000000, 2000000]],
[receive {done, First} -> ok end || First <- [0, 1000000, 2000000]],
[There ! {Self, Number, Data(Number)} || Number <- lists:seq(1, 10 * Count)],
[receive {Number, Back} -> Back = Data(Number) end || Number <- lists:seq(1, 10 * Count)],
Big = rand:bytes(%d),
There ! {Self, big, Big},
receive {big, Again} -> Big = Again end,
Sum = erlang:md5(Big),
Sum = rpc:call('server@127.0.0.1', erlang, md5, [Big]),
monitor_node('server@127.0.0.1', true),
There ! {Self, stop},
receive stopped -> ok end,
receive {nodedown, _} -> io:format("~p echoed~n", [13 * Count]) end,
halt(0).
"""


class Calls(Compared):
    def script(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    @unittest.skipIf(subprocess.run([sys.executable, "-c", "import grpc"], capture_output=True, check=False).returncode,
                     "python3-grpcio not installed")
    def test_grpc(self) -> None:
        server_script, client_script = self.script("server.py", GRPC_SERVER), self.script("client.py", GRPC_CLIENT)

        def scenario(lane: Lane) -> object:
            port = free_port()
            server = self.serve(port, sys.executable, server_script, str(port), front=lane.server, stdin=subprocess.PIPE)
            before = self.holds(server)
            said = self.start(sys.executable, client_script, str(port), str(scaled(25, 1000)), front=lane.client).succeed(240)
            self.holds_again(server, before, 2)
            server.process.stdin.close()
            server.succeed()
            return said

        self.compare(scenario, fused=3, lanes=LANES)

    def test_erlang(self) -> None:
        def scenario(lane: Lane) -> object:
            names, port = free_port(), free_port()
            environment = {"ERL_EPMD_PORT": str(names), "HOME": str(self.folder)}
            self.serve(names, "epmd", "-port", str(names), "-address", "127.0.0.1", front=lane.server)

            def node(name: str, listen: int, text: str, front: tuple[str, ...]):
                return self.start("erl", "-noinput", "-name", f"{name}@127.0.0.1", "-setcookie", "k", "-start_epmd", "false",
                                  "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "inet_dist_listen_min", str(listen),
                                  "inet_dist_listen_max", str(listen), "-eval", text, front=front, env=environment,
                                  cwd=self.folder)

            server = node("server", port, ERLANG_SERVER, lane.server)
            ready = self.start("bash", "-c", "until epmd -names | grep -q server; do sleep 0.05; done", front=(), env=environment)
            try:
                until(lambda: server.require_alive() or ready.process.poll() == 0, "the node is registered", 120)
            except TimeLimit as problem:
                raise server.failure(f"{problem}\n{stacks(server.pid)}") from None
            client = node("client", free_port(), ERLANG_CLIENT % (scaled(200, 10_000), scaled(3_000_000, 100_000_000)),
                          lane.client)
            said = client.succeed(240)
            self.assertEqual(server.wait(30), 0, server.output())
            return said

        self.compare(scenario, fused=1, lanes=LANES)


if __name__ == "__main__":
    main(needs=["erl", "epmd"])
