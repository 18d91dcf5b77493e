// Calls that have nothing to do with sockets, made on one; and calls with every odd argument.
#include <aio.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include <linux/tcp.h>

#include "cases.h"

namespace differential {

CASE(file_calls) {
    const int fd = p.b.fd();
    p.a.send("bytes");
    p.b.await_bytes(5);
    p.b.call("lseek", [&] { return ::lseek(fd, 0, SEEK_SET); });
    p.b.call("fsync", [&] { return ::fsync(fd); });
    p.b.call("fdatasync", [&] { return ::fdatasync(fd); });
    p.b.call("ftruncate", [&] { return ::ftruncate(fd, 0); });
    p.b.call("fallocate", [&] { return ::fallocate(fd, 0, 0, 10); });
    p.b.call("flock", [&] { return ::flock(fd, LOCK_EX | LOCK_NB); });
    p.b.call("flock off", [&] { return ::flock(fd, LOCK_UN); });
    p.b.call("lockf", [&] { return ::lockf(fd, F_TLOCK, 0); });
    p.b.call("fchdir", [&] { return ::fchdir(fd); });
    p.b.call("isatty", [&] { return ::isatty(fd); });
    p.b.call("tcgetattr", [&] {
        termios settings;
        return ::tcgetattr(fd, &settings);
    });
    p.b.call("mmap", [&] {
        void* const memory = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, fd, 0);
        return memory == MAP_FAILED ? -1 : 0;
    });
    p.b.call("pread", [&] {
        char byte;
        return ::pread(fd, &byte, 1, 0);
    });
    p.b.call("pwrite", [&] { return ::pwrite(fd, "x", 1, 0); });
    p.b.call("preadv", [&] {
        char byte;
        const iovec part{&byte, 1};
        return ::preadv(fd, &part, 1, 0);
    });
    p.b.call("preadv at -1", [&] {
        char byte;
        const iovec part{&byte, 1};
        return ::preadv(fd, &part, 1, -1);
    });
    p.b.call("pwritev", [&] {
        const iovec part{const_cast<char*>("x"), 1};
        return ::pwritev(fd, &part, 1, 0);
    });
    p.b.call("posix_fadvise", [&] { return ::posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL); });
    p.b.call("readahead", [&] { return ::readahead(fd, 0, 10); });
    p.b.call("copy_file_range", [&] { return ::copy_file_range(fd, nullptr, fd, nullptr, 1, 0); });
    p.b.call("fchmod", [&] { return ::fchmod(fd, 0600); });
    p.b.call("unknown ioctl", [&] { return ::ioctl(fd, 0x12345678, 0); });
    p.b.call_with_text("/proc/self/fd", [&](Outcome& outcome) {
        char name[64];
        outcome.value = ::readlink(format("/proc/self/fd/%d", fd).c_str(), name, sizeof name);
        outcome.text = std::string(name, 8);
        outcome.value = 0;
    });
    p.b.call("open by its link", [&] { return ::open(format("/proc/self/fd/%d", fd).c_str(), O_RDWR); });
    p.b.recv(100);
}

CASE(nothing_at_all) {
    const int fd = p.b.fd();
    char byte = 0;
    p.b.nonblocking(true);
    p.a.nonblocking(true);
    for (const bool with_bytes : {false, true}) {
        if (with_bytes) {
            p.a.send("xyz");
            p.b.await_bytes(3);
        }
        p.b.call("read 0", [&] { return ::read(fd, &byte, 0); });
        p.b.call("read 0 into nowhere", [&] { return ::read(fd, nullptr, 0); });
        p.b.call("recv 0", [&] { return ::recv(fd, &byte, 0, 0); });
        p.b.call("recv 0 PEEK", [&] { return ::recv(fd, &byte, 0, MSG_PEEK); });
        p.b.call("recv 0 TRUNC", [&] { return ::recv(fd, &byte, 0, MSG_TRUNC); });
        p.b.call("recv 0 WAITALL", [&] { return ::recv(fd, &byte, 0, MSG_WAITALL); });
        p.b.call("recv 0 into nowhere", [&] { return ::recv(fd, nullptr, 0, 0); });
        p.b.call("readv of none", [&] { return ::readv(fd, nullptr, 0); });
        p.b.call("readv of empty parts", [&] {
            const iovec parts[] = {{&byte, 0}, {nullptr, 0}};
            return ::readv(fd, parts, 2);
        });
        p.b.recvmsg({}, 0);
        p.b.recvmsg({0, 0}, 0);
        p.b.recvmsg({}, MSG_PEEK);
        p.b.recvmmsg({}, 0);
        p.b.call("write 0", [&] { return ::write(fd, nullptr, 0); });
        p.b.call("send 0", [&] { return ::send(fd, nullptr, 0, 0); });
        p.b.call("send 0 OOB", [&] { return ::send(fd, nullptr, 0, MSG_OOB); });
        p.b.call("writev of none", [&] { return ::writev(fd, nullptr, 0); });
        p.b.sendmsg({}, 0);
        p.b.sendmmsg({}, 0);
        p.b.call("sendfile 0", [&] { return ::sendfile(fd, fd, nullptr, 0); });
    }
    p.b.recv(100);
    p.a.recv(100);
}

CASE(too_many_parts) {
    const int fd = p.b.fd();
    static iovec parts[IOV_MAX + 1];
    static char byte = 'x';
    p.b.quietly("parts", [](Outcome&) {
        for (auto& part : parts)
            part = {&byte, 0};
        parts[IOV_MAX - 1] = {&byte, 1};
    });
    p.b.nonblocking(true);
    p.b.call("writev IOV_MAX", [&] { return ::writev(fd, parts, IOV_MAX); });
    p.b.call("writev IOV_MAX + 1", [&] { return ::writev(fd, parts, IOV_MAX + 1); });
    p.b.call("writev -1", [&] { return ::writev(fd, parts, -1); });
    p.b.call("readv IOV_MAX + 1", [&] { return ::readv(fd, parts, IOV_MAX + 1); });
    p.b.call("readv -1", [&] { return ::readv(fd, parts, -1); });
    p.b.call("readv IOV_MAX", [&] { return ::readv(fd, parts, IOV_MAX); });
    p.b.call("sendmsg IOV_MAX + 1", [&] {
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = IOV_MAX + 1;
        return ::sendmsg(fd, &message, 0);
    });
    p.b.call("recvmsg IOV_MAX + 1", [&] {
        msghdr message{};
        message.msg_iov = parts;
        message.msg_iovlen = IOV_MAX + 1;
        return ::recvmsg(fd, &message, 0);
    });
    p.b.call("recvmmsg, many", [&] {
        static mmsghdr headers[2000];
        for (auto& header : headers) {
            header.msg_hdr.msg_iov = parts;
            header.msg_hdr.msg_iovlen = 1;
        }
        return ::recvmmsg(fd, headers, 2000, 0, nullptr);
    });
    p.b.call("sendmmsg, many", [&] {
        static mmsghdr headers[2000];
        for (auto& header : headers) {
            header.msg_hdr.msg_iov = &parts[IOV_MAX - 1];
            header.msg_hdr.msg_iovlen = 1;
        }
        return ::sendmmsg(fd, headers, 2000, 0);
    });
    p.a.await_bytes(1025);
    p.a.recv(3000);
}

CASE(message_results) {
    const int fd = p.b.fd();
    p.a.send("0123456789");
    p.b.await_bytes(10);
    static constexpr int kFlags[] = {0,
                                     MSG_PEEK,
                                     MSG_TRUNC,
                                     MSG_PEEK | MSG_TRUNC,
                                     static_cast<int>(MSG_CMSG_CLOEXEC),
                                     MSG_DONTWAIT,
                                     MSG_CTRUNC,
                                     MSG_EOR,
                                     MSG_PEEK | MSG_WAITALL,
                                     MSG_MORE,
                                     MSG_NOSIGNAL,
                                     static_cast<int>(MSG_CMSG_CLOEXEC) | MSG_PEEK};
    for (const int flags : kFlags)
        p.b.call_with_text("recvmsg " + flag_names(flags), [&](Outcome& outcome) {
            char bytes[2] = {};
            char control[8];
            sockaddr_storage name;
            iovec part{bytes, 1};
            msghdr message{};
            message.msg_iov = &part;
            message.msg_iovlen = 1;
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            message.msg_name = &name;
            message.msg_namelen = sizeof name;
            message.msg_flags = -1;
            outcome.value = ::recvmsg(fd, &message, flags);
            outcome.error = errno;
            outcome.text = format("%s name %u control %zu flags %x", bytes, message.msg_namelen,
                                  message.msg_controllen, static_cast<unsigned>(message.msg_flags));
        });
    p.b.recv(100);
    p.b.call_with_text("recvmsg without anything", [&](Outcome& outcome) {
        msghdr message{};
        message.msg_namelen = 77;
        message.msg_flags = 77;
        outcome.value = ::recvmsg(fd, &message, MSG_DONTWAIT);
        outcome.error = errno;
        outcome.text =
            format("name %u flags %x", message.msg_namelen, static_cast<unsigned>(message.msg_flags));
    });
    p.b.call("recvmsg with a negative name length", [&] {
        char byte;
        sockaddr_storage name;
        iovec part{&byte, 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_name = &name;
        message.msg_namelen = static_cast<socklen_t>(-1);
        return ::recvmsg(fd, &message, MSG_DONTWAIT);
    });
    p.b.call("recvfrom with a negative name length", [&] {
        char byte;
        sockaddr_storage name;
        auto size = static_cast<socklen_t>(-1);
        return ::recvfrom(fd, &byte, 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&name), &size);
    });
    p.a.send("w");
    p.b.await_bytes(1);
    p.b.call("recvfrom with a negative name length", [&] {
        char byte;
        sockaddr_storage name;
        auto size = static_cast<socklen_t>(-1);
        return ::recvfrom(fd, &byte, 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&name), &size);
    });
    p.a.send("v");
    p.b.await_bytes(1);
    p.b.call_with_text("recvmsg, a length without a name", [&](Outcome& outcome) {
        char byte;
        iovec part{&byte, 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_namelen = 77;
        outcome.value = ::recvmsg(fd, &message, MSG_DONTWAIT);
        outcome.error = errno;
        outcome.text = format("name %u", message.msg_namelen);
    });
    p.a.send("x");
    p.b.await_bytes(1);
    p.b.call("recvfrom, a name without a length", [&] {
        char byte;
        sockaddr_storage name;
        return ::recvfrom(fd, &byte, 1, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&name), nullptr);
    });
    p.a.send("y");
    p.b.await_bytes(1);
    p.b.call_with_text("recvfrom, a length without a name", [&](Outcome& outcome) {
        char byte;
        socklen_t size = 5;
        outcome.value = ::recvfrom(fd, &byte, 1, MSG_DONTWAIT, nullptr, &size);
        outcome.error = errno;
        outcome.text = std::to_string(size);
    });
    p.b.recv(100, MSG_DONTWAIT);
}

CASE(message_names) {
    // A connected stream ignores the address it is given, but looks at it first.
    const int fd = p.a.fd();
    sockaddr_in name{};
    name.sin_family = AF_INET;
    p.a.call("sendto an address",
             [&] { return ::sendto(fd, "a", 1, 0, reinterpret_cast<const sockaddr*>(&name), sizeof name); });
    p.a.call("sendto a huge address",
             [&] { return ::sendto(fd, "b", 1, 0, reinterpret_cast<const sockaddr*>(&name), 1000); });
    p.a.call("sendto a negative address", [&] {
        return ::sendto(fd, "c", 1, 0, reinterpret_cast<const sockaddr*>(&name), static_cast<socklen_t>(-1));
    });
    p.a.call("sendto a bad address",
             [&] { return ::sendto(fd, "d", 1, 0, reinterpret_cast<const sockaddr*>(1), sizeof name); });
    p.a.call("sendmsg to a negative address", [&] {
        iovec part{const_cast<char*>("e"), 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_name = &name;
        message.msg_namelen = static_cast<socklen_t>(-1);
        return ::sendmsg(fd, &message, 0);
    });
    p.a.call("sendmsg to a bad address", [&] {
        iovec part{const_cast<char*>("f"), 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_name = reinterpret_cast<void*>(1);
        message.msg_namelen = sizeof name;
        return ::sendmsg(fd, &message, 0);
    });
    p.a.call("sendmsg with huge control", [&] {
        iovec part{const_cast<char*>("g"), 1};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = &name;
        message.msg_controllen = static_cast<size_t>(INT_MAX) + 1;
        return ::sendmsg(fd, &message, 0);
    });
    p.a.send("end");
    p.b.await_bytes(4);
    p.b.recv(100);
}

CASE(accept_on_a_connection) {
    p.a.call("accept", [&] { return ::accept(p.a.fd(), nullptr, nullptr); });
    p.a.call("listen", [&] { return ::listen(p.a.fd(), 1); });
    p.a.call("connect again", [&] {
        sockaddr_storage name{};
        socklen_t size = sizeof name;
        ::getpeername(p.a.fd(), reinterpret_cast<sockaddr*>(&name), &size);
        return ::connect(p.a.fd(), reinterpret_cast<const sockaddr*>(&name), size);
    });
    p.a.call("bind", [&] {
        sockaddr_in6 name{};
        socklen_t size = sizeof name;
        ::getsockname(p.a.fd(), reinterpret_cast<sockaddr*>(&name), &size);
        name.sin6_port = 0;
        return ::bind(p.a.fd(), reinterpret_cast<const sockaddr*>(&name), size);
    });
    p.a.call("shutdown with an odd direction", [&] { return ::shutdown(p.a.fd(), 3); });
    p.a.call("shutdown with a negative direction", [&] { return ::shutdown(p.a.fd(), -1); });
    p.a.send("still works");
    p.b.await_bytes(11);
    p.b.recv(100);
    p.b.send("this way too");
    p.a.await_bytes(12);
    p.a.recv(100);
}

CASE(disconnect) {
    p.a.send("unread");
    p.b.await_bytes(6);
    p.a.call("connect to nothing", [&] {
        sockaddr name{};
        name.sa_family = AF_UNSPEC;
        return ::connect(p.a.fd(), &name, sizeof name);
    });
    p.a.getpeername();
    p.a.send("x", MSG_NOSIGNAL);
    p.a.recv(10, MSG_DONTWAIT);
    p.a.poll(POLLIN | POLLOUT | POLLRDHUP);
    p.b.await_end();
    p.b.poll(POLLIN | POLLOUT | POLLRDHUP);
    p.b.recv(100);
    p.b.recv(100);
    p.b.send("x", MSG_NOSIGNAL);
    p.b.recv(100);
}

CASE(disconnect_with_unread_bytes) {
    p.b.send("unread");
    p.a.await_bytes(6);
    p.a.call("connect to nothing", [&] {
        sockaddr name{};
        name.sa_family = AF_UNSPEC;
        return ::connect(p.a.fd(), &name, sizeof name);
    });
    p.a.fionread();
    p.a.recv(10, MSG_DONTWAIT);
    p.b.await_end();
    p.b.recv(10);
    p.b.recv(10);
}

CASE_THAT(disconnect_and_connect_again, kBare) {
    p.establish();
    p.client.send("first");
    p.server.await_bytes(5);
    p.server.recv(100);
    p.client.call("connect to nothing", [&] {
        sockaddr name{};
        name.sa_family = AF_UNSPEC;
        return ::connect(p.client.fd(), &name, sizeof name);
    });
    p.server.await_end();
    p.server.recv(10);
    p.server.close();
    p.connect();
    p.accept();
    for (int i = 0; i < 4; ++i) {
        p.client.send("second");
        p.server.await_bytes(6);
        p.server.recv(100);
        p.server.send("answer");
        p.client.await_bytes(6);
        p.client.recv(100);
    }
    p.client.close();
    p.server.await_end();
    p.server.recv(10);
}

CASE(sendfile_odd) {
    p.a.call("between sockets", [&] { return ::sendfile(p.a.fd(), p.a.fd(), nullptr, 10); });
    const auto [reading, writing] = make_pipe(p.script, p.a.actor(), "pipe");
    writing.write("pipe");
    p.a.call("from a pipe",
             [&, &reading = reading] { return ::sendfile(p.a.fd(), reading.fd(), nullptr, 4); });
    p.a.call_with_text("from a file", [&](Outcome& outcome) {
        FILE* const file = ::tmpfile();
        const int fd = ::fileno(file);
        long result = ::write(fd, "0123456789", 10);
        const auto try_it = [&](off_t* offset, size_t size) {
            const ssize_t sent = ::sendfile(p.a.fd(), fd, offset, size);
            outcome.text += sent < 0 ? error_name(errno) + " " : format("%zd ", sent);
        };
        try_it(nullptr, 10);  // at its end
        ::lseek(fd, 4, SEEK_SET);
        try_it(nullptr, 3);
        off_t offset = 8;
        try_it(&offset, 100);
        outcome.text += format("offset %ld ", static_cast<long>(offset));
        try_it(&offset, 100);
        offset = -1;
        try_it(&offset, 1);
        offset = 100;
        try_it(&offset, 1);
        offset = LONG_MAX;
        try_it(&offset, 1);
        offset = 2;
        try_it(&offset, static_cast<size_t>(-1));
        outcome.text += format("offset %ld ", static_cast<long>(offset));
        try_it(reinterpret_cast<off_t*>(1), 1);
        outcome.text += format("at %ld ", static_cast<long>(::lseek(fd, 0, SEEK_CUR)));
        const int write_only = ::open("/dev/null", O_WRONLY);
        const ssize_t sent = ::sendfile(p.a.fd(), write_only, nullptr, 1);
        outcome.text += sent < 0 ? error_name(errno) + " " : format("%zd ", sent);
        ::close(write_only);
        const int directory = ::open("/", O_RDONLY);
        const ssize_t listed = ::sendfile(p.a.fd(), directory, nullptr, 1);
        outcome.text += listed < 0 ? error_name(errno) + " " : format("%zd ", listed);
        ::close(directory);
        const ssize_t bad = ::sendfile(p.a.fd(), -1, nullptr, 1);
        outcome.text += bad < 0 ? error_name(errno) + " " : format("%zd ", bad);
        const ssize_t back = ::sendfile(fd, p.a.fd(), nullptr, 1);
        outcome.text += back < 0 ? error_name(errno) : format("%zd", back);
        ::fclose(file);
        outcome.value = result;
    });
    p.a.send("end");
    p.b.quietly("bytes come", [&](Outcome&) { usleep(20'000); });
    p.b.drain(8);
    p.b.recv(10, MSG_DONTWAIT);
}

CASE(splice_odd) {
    const auto [reading, writing] = make_pipe(p.script, p.b.actor(), "pipe");
    const int in = reading.fd();
    const int out = writing.fd();
    const int fd = p.b.fd();
    p.a.send("0123456789");
    p.b.await_bytes(10);
    p.b.call("from a path", [&] {
        const int path = ::open("/tmp", O_PATH | O_CLOEXEC);
        const ssize_t result = ::splice(path, nullptr, fd, nullptr, 4, 0);
        const int error = errno;
        ::close(path);
        errno = error;
        return result;
    });
    p.b.call("into a file", [&] {
        const int file = ::open("/tmp", O_TMPFILE | O_RDWR, 0600);
        const ssize_t result = ::splice(fd, nullptr, file, nullptr, 4, 0);
        const int error = errno;
        ::close(file);
        errno = error;
        return result;
    });
    p.b.call("into itself", [&] { return ::splice(fd, nullptr, fd, nullptr, 4, 0); });
    p.b.call("with an offset", [&] {
        off64_t offset = 0;
        return ::splice(fd, &offset, out, nullptr, 4, 0);
    });
    p.b.call("with odd flags", [&] { return ::splice(fd, nullptr, out, nullptr, 4, 0xff00); });
    p.b.call("of nothing", [&] { return ::splice(fd, nullptr, out, nullptr, 0, 0); });
    p.b.call("into the wrong end", [&] { return ::splice(fd, nullptr, in, nullptr, 4, 0); });
    p.b.call("into nowhere", [&] { return ::splice(fd, nullptr, -1, nullptr, 4, 0); });
    p.b.call("four", [&] { return ::splice(fd, nullptr, out, nullptr, 4, SPLICE_F_MOVE | SPLICE_F_MORE); });
    reading.read(100);
    p.b.recv(100);
    writing.write("from the pipe");
    p.b.call("out of the wrong end", [&] { return ::splice(out, nullptr, fd, nullptr, 4, 0); });
    p.b.call("back", [&] { return ::splice(in, nullptr, fd, nullptr, 100, 0); });
    p.a.await_bytes(13);
    p.a.recv(100);
    p.b.call("tee", [&] { return ::tee(fd, out, 4, 0); });
    p.b.call("vmsplice", [&] {
        iovec part{const_cast<char*>("x"), 1};
        return ::vmsplice(fd, &part, 1, 0);
    });
    p.a.shutdown(SHUT_WR);
    p.b.await_end();
    p.b.call("at the end", [&] { return ::splice(fd, nullptr, out, nullptr, 4, 0); });
    p.b.call("into a pipe without a reader", [&] {
        ::close(in);
        return ::splice(fd, nullptr, out, nullptr, 4, 0);
    });
}

CASE_THAT(asynchronous, kBlocking) {
    const auto wait = [](aiocb& request) -> long {
        const aiocb* const list[] = {&request};
        while (::aio_error(&request) == EINPROGRESS)
            ::aio_suspend(list, 1, nullptr);
        const int error = ::aio_error(&request);
        const ssize_t result = ::aio_return(&request);
        errno = error;
        return result;
    };
    p.a.send("for aio");
    p.b.await_bytes(7);
    p.b.call_with_text("aio_read", [&](Outcome& outcome) {
        char bytes[16] = {};
        aiocb request{};
        request.aio_fildes = p.b.fd();
        request.aio_buf = bytes;
        request.aio_nbytes = 16;
        outcome.value = ::aio_read(&request) < 0 ? -1 : wait(request);
        outcome.error = errno;
        outcome.text = bytes;
    });
    p.b.call("aio_write", [&]() -> long {
        aiocb request{};
        request.aio_fildes = p.b.fd();
        request.aio_buf = const_cast<char*>("from aio");
        request.aio_nbytes = 8;
        return ::aio_write(&request) < 0 ? -1 : wait(request);
    });
    p.a.await_bytes(8);
    p.a.recv(100);
    p.a.send("after");
    p.b.await_bytes(5);
    p.b.recv(100);
    p.b.call("lio_listio", [&]() -> long {
        aiocb request{};
        request.aio_lio_opcode = LIO_WRITE;
        request.aio_fildes = p.b.fd();
        request.aio_buf = const_cast<char*>("list");
        request.aio_nbytes = 4;
        aiocb* list[] = {&request};
        return ::lio_listio(LIO_WAIT, list, 1, nullptr) * 100 + wait(request);
    });
    p.a.await_bytes(4);
    p.a.recv(100);
}

CASE_THAT(accept_names, kBare) {
    p.establish();
    const int listener = p.listener.fd();
    const auto with_one_waiting = [&](const char* what, const std::function<long(socklen_t&)>& accept) {
        p.listener.call_with_text(what, [&](Outcome& outcome) {
            sockaddr_storage name{};
            socklen_t size = sizeof name;
            ::getsockname(listener, reinterpret_cast<sockaddr*>(&name), &size);
            const int to = ::socket(name.ss_family, SOCK_STREAM, 0);
            (void)::connect(to, reinterpret_cast<const sockaddr*>(&name), size);
            pollfd one{listener, POLLIN, 0};
            ::poll(&one, 1, 1000);
            size = 0;
            const long fd = accept(size);
            outcome.value = fd < 0 ? fd : 0;
            outcome.error = errno;
            outcome.text = std::to_string(size);
            if (fd >= 0)
                ::close(static_cast<int>(fd));
            ::close(to);
            ::fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK);
            for (int other = 0; other >= 0; ::close(other))
                if ((other = ::accept(listener, nullptr, nullptr)) < 0)
                    break;
            ::fcntl(listener, F_SETFL, O_RDWR);
        });
    };
    for (const socklen_t room : {0U, 1U, 2U, 7U, 16U, 128U})
        with_one_waiting(format("accept into %u bytes", room).c_str(), [&](socklen_t& size) {
            sockaddr_storage name;
            size = room;
            return ::accept(listener, reinterpret_cast<sockaddr*>(&name), &size);
        });
    with_one_waiting("accept into a negative size", [&](socklen_t& size) {
        sockaddr_storage name;
        size = static_cast<socklen_t>(-1);
        return ::accept(listener, reinterpret_cast<sockaddr*>(&name), &size);
    });
    with_one_waiting("accept, a name without a size", [&](socklen_t&) {
        sockaddr_storage name;
        return ::accept(listener, reinterpret_cast<sockaddr*>(&name), nullptr);
    });
    with_one_waiting("accept, a size without a name", [&](socklen_t& size) {
        size = 3;
        return ::accept(listener, nullptr, &size);
    });
    with_one_waiting("accept, a bad name", [&](socklen_t& size) {
        size = 16;
        return ::accept(listener, reinterpret_cast<sockaddr*>(1), &size);
    });
    with_one_waiting("accept, a bad size", [&](socklen_t&) {
        sockaddr_storage name;
        return ::accept(listener, reinterpret_cast<sockaddr*>(&name), reinterpret_cast<socklen_t*>(1));
    });
}

CASE(time_options) {
    const int fd = p.b.fd();
    const auto set = [&](const char* what, int name, long seconds, long microseconds, socklen_t size) {
        p.b.call_with_text(what, [&](Outcome& outcome) {
            const timeval time{seconds, microseconds};
            outcome.value = ::setsockopt(fd, SOL_SOCKET, name, &time, size);
            outcome.error = errno;
            timeval now{};
            socklen_t length = sizeof now;
            ::getsockopt(fd, SOL_SOCKET, name, &now, &length);
            outcome.text =
                format("%ld.%06ld %u", static_cast<long>(now.tv_sec), static_cast<long>(now.tv_usec), length);
        });
    };
    for (const int name : {SO_RCVTIMEO, SO_SNDTIMEO}) {
        set("20 ms", name, 0, 20'000, sizeof(timeval));
        set("too many microseconds", name, 0, 1'000'000, sizeof(timeval));
        set("negative microseconds", name, 0, -1, sizeof(timeval));
        set("too short", name, 1, 0, 8);
        set("too long", name, 0, 40'000, 2 * sizeof(timeval));
        set("very long", name, LONG_MAX, 0, sizeof(timeval));
        set("negative", name, -1, 0, sizeof(timeval));
        if (name == SO_RCVTIMEO)
            p.b.recv(1);
        set("none", name, 0, 0, sizeof(timeval));
    }
}

}  // namespace differential
