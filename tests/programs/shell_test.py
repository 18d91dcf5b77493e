#!/usr/bin/env python3
"""Programs that have nothing to do with loopfast must not notice it: ls, bash with pipes, redirections and
/dev/tcp, gcc, make, tar, git; the same output, files and exit statuses as without."""

import re
import shutil
import socket
import threading

from harness.case import FAST, Case, main
from harness.process import fast

SCRIPTS = {
    "listing": "ls -la /usr/lib/python3.*/ | head -50; ls /nowhere; echo status $?",
    "pipes": "seq 200000 | awk '{s += $1} END {print s}'; yes | head -c 1000000 | sha256sum; seq 5 | tac | paste -sd+ | bc",
    "redirections": """
        exec 3>out 4<&0 5>&1
        for i in {1..300}; do echo line $i >&3; done
        exec 3>&-
        while read -r word number; do [ $number -eq 300 ] && echo found; done <out
        cat <<<"here string"; cat <<END
here document $((6*7))
END
        (echo to error >&2) 2>&1 | tr a-z A-Z
        echo $(wc -l <out) >&5; diff <(seq 10) <(seq 10) && echo same; rm out
        """,
    "statuses": "false; echo $?; (exit 37); echo $?; bash -c 'kill -9 $$'; echo $?; nosuchprogram; echo $?; "
                "timeout 0.1 sleep 5; echo $?; sh -c 'exit 3' | cat; echo ${PIPESTATUS[*]}; exit 19",
    "jobs": "{ for i in 1 2 3 4; do (sleep 0.$i; echo $i) & done; wait; } | sort; trap 'echo trapped' USR1; kill -USR1 $$; "
            "coproc cat; echo through >&${COPROC[1]}; read -r l <&${COPROC[0]}; echo $l; kill $COPROC_PID",
    "descriptors": "ulimit -n; ls /proc/self/fd | wc -l; exec {fd}</dev/null; echo $fd; exec {fd}<&-; "
                   "for i in {1..500}; do /bin/true; done; echo done",
    "gcc": """
        cat >hello.cpp <<'END'
#include <algorithm>
#include <iostream>
#include <regex>
#include <thread>
#include <vector>
int main() {
    std::vector<int> v{5, 3, 9};
    std::thread([&] { std::sort(v.begin(), v.end()); }).join();
    for (int i : v) std::cout << i << ' ';
    std::cout << std::regex_replace("a fast loop", std::regex("o+"), "0") << std::endl;
}
END
        g++ -O1 -o hello hello.cpp -pthread; echo $?; ./hello; echo 'int main() { return x; }' >bad.cpp
        g++ -c bad.cpp; echo $?
        """,
    "make": """
        printf 'all: a b c d\\n%%: %%.txt\\n\\ttr a-z A-Z <$< >$@\\n' >Makefile
        for f in a b c d; do echo text of $f >$f.txt; done
        make -j4 -s; cat a b c d; make -q; echo $?; make nothing; echo $?
        """,
    "archives": """
        mkdir tree; for i in {1..60}; do seq $((i * 200)) >tree/$i; done
        tar cf - tree | gzip -1 >tree.tgz; mkdir copy; gzip -dc tree.tgz | tar xf - -C copy
        diff -r tree copy/tree && echo identical; (cd tree; sha256sum * | sort | sha256sum); tar tzf tree.tgz | wc -l
        """,
    "git": """
        export GIT_AUTHOR_DATE='2020-01-01 00:00:00 +0000' GIT_COMMITTER_DATE='2020-01-01 00:00:00 +0000'
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b HOME=$PWD
        git init -q -b trunk work; cd work
        for i in 1 2 3 4 5; do seq $((i * 1000)) >file; git add file; git commit -qm "number $i"; done
        git log --format='%H %s'; git clone -q . ../clone; cd ../clone; git fsck; git diff --stat HEAD~2; git gc -q
        git rev-parse HEAD; git checkout nothing; echo $?
        """,
    "python": "python3 -c 'import json, subprocess, sys, ssl, multiprocessing as m; "
              "print(subprocess.run([\"echo\", \"x\"], capture_output=True).stdout, m.Pool(2).map(len, [[1], []]))'",
    "dynamic loader": "ldd /bin/ls | wc -l >/dev/null; env -i /bin/echo bare; env -u LD_PRELOAD ls / | wc -l; su --version | head -1",
}


def said(front: tuple[str, ...], case: Case, script: str) -> tuple[int, str, str]:
    """Exit status, output, errors; in a folder of the same name each time."""
    folder = case.folder / "here"
    folder.mkdir()
    try:
        program = case.start("bash", "-c", f"exec 2>errors; {script}", front=front, cwd=folder)
        status = program.wait(120)
        errors = (folder / "errors").read_text() if (folder / "errors").exists() else ""
        # bash says which process was killed.
        return status, program.output(), re.sub(r"\b\d+ Killed", "PID Killed", errors)
    finally:
        shutil.rmtree(folder)


class Shell(Case):
    """Its methods come from the table above."""

    def test_dev_tcp(self) -> None:
        """bash's own sockets: an echo server reached through /dev/tcp, byte by byte and in bulk."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(60)
            port = server.getsockname()[1]

            def echo() -> None:
                for _ in range(4):
                    sock, _ = server.accept()
                    with sock:
                        sock.settimeout(60)
                        while data := sock.recv(65536):
                            sock.sendall(data)

            thread = threading.Thread(target=echo)
            thread.start()
            script = f"""
                exec 9<>/dev/tcp/127.0.0.1/{port}
                for i in {{1..200}}; do echo ping $i >&9; read -r line <&9; [ "$line" = "ping $i" ] || echo wrong; done
                exec 9>&-
                exec 8<>/dev/tcp/127.0.0.1/{port}
                (seq 20000 >&8) & head -c 108894 <&8 | sha256sum; wait; exec 8>&-
                echo x 2>/dev/null >/dev/tcp/127.0.0.1/1 || echo refused
                """
            results = [said(front, self, script) for front in (FAST, ())]
            thread.join(60)
        self.assertEqual(results[0], results[1])
        self.assertIn("refused", results[0][1])
        self.assertNotIn("wrong", results[0][1])

    def test_echo_between_two_shells(self) -> None:
        """Both ends under loopfast: a Python server that forks a shell for each connection, as inetd does."""
        server = self.start("python3", "-c", """
import os, socket, subprocess
s = socket.create_server(("127.0.0.1", 0))
print(s.getsockname()[1], flush=True)
for _ in range(6):
    c, _ = s.accept()
    subprocess.run(["bash", "-c", "while read -r n; do [ $n = end ] && break; seq $n; done"], stdin=c, stdout=c)
    c.close()
""", front=fast("--threshold", "0"))
        port = int(until_line(server))
        for number in range(6):
            size = (10, 3000, 40000)[number % 3]
            got = self.start("bash", "-c", f"exec 9<>/dev/tcp/127.0.0.1/{port}; echo {size} >&9; echo end >&9; cat <&9",
                             front=fast("--threshold", "0") if number < 4 else ()).succeed()
            self.assertEqual(got, "".join(f"{i}\n" for i in range(1, size + 1)))
        self.assertEqual(server.wait(), 0)


def until_line(program) -> str:
    from harness.wait import until  # pylint: disable=import-outside-toplevel
    return until(lambda: program.output().partition("\n")[0], "a line of output")


def comparison(script: str):
    def test(self: Shell) -> None:
        with_it, without = said(FAST, self, script), said((), self, script)
        self.assertEqual(with_it, without)
    return test


for name, text in SCRIPTS.items():
    setattr(Shell, f"test_{name.replace(' ', '_')}", comparison(text))


if __name__ == "__main__":
    main(needs=["bash", "g++", "make", "git", "tar", "gzip", "bc"], preload=False)
