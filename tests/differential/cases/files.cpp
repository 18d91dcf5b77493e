// Streams as files: sendfile, splice, tee, stdio, dprintf.
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <functional>

#include "cases.h"

namespace differential {

namespace {

/// A file with these bytes, read from its beginning.
int file_of(const std::string& bytes) {
    const int fd = ::memfd_create("file", MFD_CLOEXEC);
    if (::write(fd, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
        return -1;
    ::lseek(fd, 0, SEEK_SET);
    return fd;
}

}  // namespace

CASE(sendfile_calls) {
    p.a.call_with_text("sendfile", [&](Outcome& outcome) {
        const int file = file_of(pattern(1000));
        outcome.value = ::sendfile(p.a.fd(), file, nullptr, 400);
        outcome.text = format("at %ld", static_cast<long>(::lseek(file, 0, SEEK_CUR)));
        ::close(file);
    });
    p.b.await_bytes(400);
    p.b.recv(1000);
    p.a.call_with_text("sendfile from an offset", [&](Outcome& outcome) {
        const int file = file_of(pattern(1000));
        off_t offset = 900;
        outcome.value = ::sendfile(p.a.fd(), file, &offset, 400);
        outcome.text = format("at %ld, offset %ld", static_cast<long>(::lseek(file, 0, SEEK_CUR)),
                              static_cast<long>(offset));
        ::close(file);
    });
    p.b.await_bytes(100);
    p.b.recv(1000);
    p.a.call("sendfile of nothing", [&] {
        const int file = file_of("");
        const long result = ::sendfile(p.a.fd(), file, nullptr, 100);
        ::close(file);
        return result;
    });
    p.a.call("sendfile from nowhere", [&] { return ::sendfile(p.a.fd(), 50, nullptr, 100); });
    p.a.call("sendfile from the stream", [&] {
        const int file = file_of("");
        const long result = ::sendfile(file, p.a.fd(), nullptr, 100);
        const int error = errno;
        ::close(file);
        errno = error;
        return result;
    });
    p.a.send("end");
    p.b.await_bytes(3);
    p.b.recv(10);
}

CASE(sendfile_large) {
    Pending sending = p.a.start("sendfile", [end = p.a](Outcome& outcome) {
        const int file = file_of(pattern(2'000'000, 9));
        off_t offset = 0;
        while (offset < 2'000'000) {
            pollfd entry{end.fd(), POLLOUT, 0};
            ::poll(&entry, 1, 5000);
            const long sent = ::sendfile(end.fd(), file, &offset, 2'000'000);
            if (sent < 0 && errno != EAGAIN)
                break;
        }
        outcome.value = offset;
        ::close(file);
    });
    p.b.drain(2'000'000);
    sending.finish();
}

CASE(sendfile_from_the_socket) {
    // sendfile takes a socket as its source where the other end is a pipe.
    const auto [out, in] = make_pipe(p.script, p.b.actor(), "pipe");
    const auto send_on = [&, &out = out, &in = in](size_t size) {
        p.b.call("sendfile into a pipe", [&] { return ::sendfile(in.fd(), p.b.fd(), nullptr, size); });
        out.call_with_text("read", [&](Outcome& outcome) {
            char bytes[64];
            pollfd ready{out.fd(), POLLIN, 0};
            outcome.value = ::poll(&ready, 1, 0) == 1 ? ::read(out.fd(), bytes, sizeof bytes) : 0;
            outcome.text.assign(bytes, static_cast<size_t>(outcome.value));
        });
    };
    p.b.nonblocking(true);
    send_on(4);
    p.a.send("0123456789");
    p.b.await_bytes(10);
    send_on(4);
    p.b.call("with an offset", [&, &in = in] {
        off_t offset = 0;
        return ::sendfile(in.fd(), p.b.fd(), &offset, 4);
    });
    send_on(100);
    p.a.send("the last");
    p.a.close();
    p.b.await_end();
    send_on(100);
    send_on(100);
}

CASE(splice_calls) {
    p.b.nonblocking(true);
    const auto [reading, writing] = make_pipe(p.script, p.a.actor(), "pipe");
    writing.write("spliced bytes");
    p.a.call("splice into the stream", [&, &reading = reading] {
        return ::splice(reading.fd(), nullptr, p.a.fd(), nullptr, 100, SPLICE_F_NONBLOCK);
    });
    p.b.await_bytes(13);
    p.b.recv(7);
    const auto [out, in] = make_pipe(p.script, p.b.actor(), "pipe2");
    p.b.call("splice out of the stream",
             [&, &in = in] { return ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 3, 0); });
    out.read(100);
    p.b.call("splice the rest",
             [&, &in = in] { return ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 100, 0); });
    out.read(100);
    p.b.call("splice of nothing",
             [&, &in = in] { return ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 100, SPLICE_F_NONBLOCK); });
    p.b.call("splice with an offset", [&, &in = in] {
        loff_t offset = 0;
        return ::splice(p.b.fd(), &offset, in.fd(), nullptr, 100, SPLICE_F_NONBLOCK);
    });
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.call("splice at the end",
             [&, &in = in] { return ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 100, 0); });
}

namespace {

/// A pipe that has no room.
std::pair<End, End> full_pipe(Pair& p, const std::string& name) {
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), name);
    writing.quietly("fill", [&, &in = writing](Outcome&) {
        const std::string page(4096, 'p');
        const int status = ::fcntl(in.fd(), F_GETFL);
        ::fcntl(in.fd(), F_SETFL, status | O_NONBLOCK);
        while (::write(in.fd(), page.data(), page.size()) > 0) {
        }
        ::fcntl(in.fd(), F_SETFL, status);
    });
    return {reading, writing};
}

}  // namespace

// The pipe is looked at before the stream is: the end is not told where there would be no room for bytes.
CASE(splice_into_a_full_pipe) {
    const auto [reading, writing] = full_pipe(p, "pipe");
    const auto splice = [&, &in = writing](unsigned flags) {
        p.b.call("splice", [&, flags] { return ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 100, flags); });
    };
    const auto both = [&, &in = writing] {
        splice(SPLICE_F_NONBLOCK);
        in.nonblocking(true);
        splice(0);
        in.nonblocking(false);
    };
    both();
    p.a.send("hello");
    p.b.await_bytes(5);
    both();
    p.b.recv(5);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    both();
    Pending waiting = p.b.start("splice", [&, &in = writing](Outcome& outcome) {
        outcome.value = ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 100, 0);
    });
    waiting.still_waiting();
    reading.read(4096);
    waiting.finish();
    splice(0);
}

// A call moves what there is room for, and does not wait for more.
CASE(splice_into_a_pipe_with_little_room) {
    const auto [reading, writing] = full_pipe(p, "pipe");
    reading.read(4096);
    p.a.send(std::string(10'000, 's'));
    p.b.await_bytes(10'000);
    p.b.call("splice", [&, &in = writing] {
        // How much it is differs with how the bytes lie in memory.
        return ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 10'000, 0) > 0 ? 1 : -1;
    });
}

CASE(splice_into_a_full_pipe_that_nobody_reads) {
    const auto [reading, writing] = full_pipe(p, "pipe");
    ::signal(SIGPIPE, SIG_IGN);
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    Pending waiting = p.b.start("splice", [&, &in = writing](Outcome& outcome) {
        outcome.value = ::splice(p.b.fd(), nullptr, in.fd(), nullptr, 100, 0);
    });
    waiting.still_waiting();
    reading.close();
    waiting.finish();
}

CASE(splice_from_an_empty_pipe) {
    // The pipe is one that waits; SPLICE_F_NONBLOCK alone says that this call does not.
    const auto [reading, writing] = make_pipe(p.script, p.a.actor(), "pipe");
    const auto splice = [&, &reading = reading](unsigned flags) {
        p.a.call("splice into the stream",
                 [&, flags] { return ::splice(reading.fd(), nullptr, p.a.fd(), nullptr, 100, flags); });
    };
    splice(SPLICE_F_NONBLOCK);
    writing.write("bytes");
    splice(SPLICE_F_NONBLOCK);
    splice(SPLICE_F_NONBLOCK);
    p.b.await_bytes(5);
    p.b.recv(10);
    writing.close();
    splice(0);
    splice(SPLICE_F_NONBLOCK);
}

CASE(splice_that_cannot_send_leaves_the_pipe) {
    const auto [reading, writing] = make_pipe(p.script, p.a.actor(), "pipe");
    writing.write("bytes");
    p.a.shutdown(SHUT_WR);
    p.a.call("splice into the stream",
             [&, &reading = reading] { return ::splice(reading.fd(), nullptr, p.a.fd(), nullptr, 100, 0); });
    reading.read(10);
}

CASE_THAT(splice_waits, kBlocking) {
    // SPLICE_F_NONBLOCK is about the pipe; the stream waits as its O_NONBLOCK says.
    const auto [out, in] = make_pipe(p.script, p.b.actor(), "pipe");
    for (const unsigned flags : std::vector<unsigned>{0, SPLICE_F_NONBLOCK}) {
        Pending waiting = p.b.start("splice", [from = p.b.fd(), to = in.fd(), flags](Outcome& outcome) {
            outcome.value = ::splice(from, nullptr, to, nullptr, 100, flags);
        });
        waiting.still_waiting();
        p.a.send("bytes");
        waiting.finish();
    }
    out.read(100);
}

// The calls that take more than one step here go on like any other when another thread closes the number.
CASE_THAT(close_under_a_splice, kBlocking) {
    const auto [out, in] = make_pipe(p.script, p.b.actor(), "pipe");
    Pending waiting = p.b.start("splice", [from = p.b.fd(), to = in.fd()](Outcome& outcome) {
        outcome.value = ::splice(from, nullptr, to, nullptr, 100, 0);
    });
    p.b.close();
    waiting.still_waiting();
    p.a.send("late");
    waiting.finish();
    out.read(100);
    p.a.await_end();
    p.a.recv(10);
}

namespace {

/// Closes `a` while `waiting` wants to send there, behind so many bytes, and reads all that comes.
void close_under(const Pair& p, Pending& waiting, long filled) {
    p.a.close();
    p.b.call("read it all", [&] {
        long got = 0;
        std::string bytes(1'000'000, 0);
        for (;;) {
            const ssize_t result = ::recv(p.b.fd(), bytes.data(), bytes.size(), 0);
            if (result <= 0)
                return got - filled + result;
            got += result;
        }
    });
    waiting.finish();
}

}  // namespace

CASE_THAT(close_under_a_sendfile, kBlocking) {
    const long filled = p.a.fill().value;
    Pending waiting = p.a.start("sendfile", [to = p.a.fd()](Outcome& outcome) {
        const int file = file_of(std::string(100'000, 'x'));
        outcome.value = ::sendfile(to, file, nullptr, 100'000);
        const int error = errno;
        ::close(file);
        errno = error;
    });
    close_under(p, waiting, filled);
}

CASE_THAT(close_under_a_splice_that_sends, kBlocking) {
    const auto [out, in] = make_pipe(p.script, p.a.actor(), "pipe");
    in.write("late");
    const long filled = p.a.fill().value;
    Pending waiting = p.a.start("splice", [from = out.fd(), to = p.a.fd()](Outcome& outcome) {
        outcome.value = ::splice(from, nullptr, to, nullptr, 100, 0);
    });
    close_under(p, waiting, filled);
}

CASE_THAT(number_used_again_under_a_receive_of_messages, kBlocking) {
    const int number = p.b.fd();
    Pending waiting = p.b.start("recvmmsg", [number](Outcome& outcome) {
        char text[2][8] = {};
        iovec parts[2] = {{text[0], 3}, {text[1], 3}};
        mmsghdr messages[2]{};
        for (int i = 0; i < 2; ++i) {
            messages[i].msg_hdr.msg_iov = &parts[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        outcome.value = ::recvmmsg(number, messages, 2, 0, nullptr);
        outcome.text = std::string(" ") + text[0] + " " + text[1];
    });
    p.b.call("dup2", [&] {
        int others[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM, 0, others) != 0 || ::dup2(others[0], number) != number)
            return -1L;
        ::close(others[0]);
        return static_cast<long>(::write(others[1], "not these", 9));
    });
    p.a.send("one");
    waiting.still_waiting();
    p.a.send("two");
    waiting.finish();
    p.a.await_end();
    p.b.read(100);
}

CASE_THAT(close_under_a_send_of_messages, kBlocking) {
    const long filled = p.a.fill().value;
    Pending waiting = p.a.start("sendmmsg", [to = p.a.fd()](Outcome& outcome) {
        std::string bytes(50'000, 'x');
        iovec part{bytes.data(), bytes.size()};
        mmsghdr messages[2]{};
        for (auto& message : messages) {
            message.msg_hdr.msg_iov = &part;
            message.msg_hdr.msg_iovlen = 1;
        }
        outcome.value = ::sendmmsg(to, messages, 2, 0);
    });
    close_under(p, waiting, filled);
}

CASE(other_transfers) {
    p.a.call("copy_file_range into the stream", [&] {
        const int file = file_of("abc");
        const long result = ::copy_file_range(file, nullptr, p.a.fd(), nullptr, 3, 0);
        const int error = errno;
        ::close(file);
        errno = error;
        return result;
    });
    p.a.call("vmsplice", [&] {
        iovec part{const_cast<char*>("x"), 1};
        return ::vmsplice(p.a.fd(), &part, 1, 0);
    });
    p.a.call("tee", [&] { return ::tee(p.a.fd(), p.a.fd(), 10, SPLICE_F_NONBLOCK); });
    p.a.call("mmap", [&] {
        return ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, p.a.fd(), 0) == MAP_FAILED ? -1 : 0;
    });
    p.a.call("ftruncate", [&] { return ::ftruncate(p.a.fd(), 0); });
    p.a.call("fsync", [&] { return ::fsync(p.a.fd()); });
}

CASE_THAT(stdio_writes, kBlocking) {
    p.a.call("fprintf", [&]() -> long {
        FILE* const file = ::fdopen(::dup(p.a.fd()), "w");
        std::fprintf(file, "one %d\n", 1);
        std::fputs("two\n", file);
        return ::fclose(file);
    });
    p.a.send("three\n");
    p.a.call("dprintf", [&] { return ::dprintf(p.a.fd(), "four %d\n", 4); });
    p.b.await_bytes(23);
    p.b.recv(100);
}

CASE_THAT(standard_descriptors, kBlocking) {
    // As a server that forks and lets the child talk through stdio, without executing anything.
    const auto with_standard = [](const End& end, int number, const std::function<long()>& talk) {
        std::fflush(stdout);
        const int kept = ::dup(number);
        ::dup2(end.fd(), number);
        const long result = talk();
        std::fflush(stdout);
        ::dup2(kept, number);
        ::close(kept);
        return result;
    };
    p.a.send("one ");
    p.a.call("printf", [&] { return with_standard(p.a, 1, [] { return std::printf("two "); }); });
    p.a.send("three\n");
    p.b.await_bytes(14);
    p.b.call_with_text("fgets", [&](Outcome& outcome) {
        outcome.value = with_standard(p.b, 0, [&] {
            char line[40] = "";
            const bool read = std::fgets(line, sizeof line, stdin) != nullptr;
            outcome.text = shown(line);
            std::clearerr(stdin);
            return read ? 1 : 0;
        });
    });
    p.b.send("back");
    p.a.await_bytes(4);
    p.a.recv(10);
}

CASE(printing_amid_other_bytes) {
    p.a.send("one ");
    p.a.call("dprintf", [&] { return ::dprintf(p.a.fd(), "%s %d ", "two", 3); });
    p.a.send("four ");
    p.a.call("a long dprintf", [&] { return ::dprintf(p.a.fd(), "%20000s", "five"); });
    p.b.await_bytes(15 + 20000);
    p.b.recv(100000);
    p.a.shutdown(SHUT_WR);
    p.a.call("dprintf after the end", [&] {
        ::signal(SIGPIPE, SIG_IGN);
        return ::dprintf(p.a.fd(), "%d", 6);
    });
}

CASE_THAT(stdio_reads, kBlocking) {
    p.a.send("first line\nsecond line\nthird");
    p.b.await_bytes(28);
    p.b.call_with_text("fgets", [&](Outcome& outcome) {
        FILE* const file = ::fdopen(::dup(p.b.fd()), "r");
        char line[100];
        while (outcome.text.size() < 30 && outcome.value < 2 && ::fgets(line, sizeof line, file) != nullptr) {
            outcome.text += line;
            ++outcome.value;
        }
        ::fclose(file);
    });
    p.a.send("after");
    p.b.await_bytes(5);
    p.b.recv(100);
}

CASE_THAT(stdio_both_ways, kBlocking) {
    p.a.send("request\n");
    p.b.await_bytes(8);
    p.b.call_with_text("a server on stdio", [&](Outcome& outcome) {
        const int copy = ::dup(p.b.fd());
        FILE* const in = ::fdopen(p.b.fd(), "r");
        FILE* const out = ::fdopen(copy, "w");
        char line[100] = "";
        outcome.value = ::fgets(line, sizeof line, in) != nullptr;
        std::fprintf(out, "you said %s", line);
        ::fflush(out);
        ::fclose(out);
        ::fclose(in);
    });
    p.a.await_end();
    p.a.recv(100);
    p.a.recv(100);
}

}  // namespace differential
