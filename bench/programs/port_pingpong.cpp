// port_pingpong: pingpong through the Winsock door: 64 bytes there and back, overlapped, each side with a
// completion port of its own. A receive is posted before the send that it answers, as such programs do it.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "winsock.h"

namespace {

constexpr ULONG message_size = 64;
constexpr uint64_t warm_up_ns = 500'000'000;
constexpr size_t most_samples = 4'000'000;
constexpr char check_lane = 'L';

/// One end: a socket on a port, and one receive and one send at a time.
class End {
public:
    explicit End(SOCKET s) : socket_(s), port_(CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1)) {
        bench::put_on_port(s, port_, 0);
    }
    ~End() {
        closesocket(socket_);
        CloseHandle(port_);
    }
    End(const End&) = delete;
    End& operator=(const End&) = delete;

    void post_receive() {
        receiving_ = {};
        WSABUF buffer = {message_size - have_, in + have_};
        DWORD flags = 0;
        DWORD got = 0;
        if (WSARecv(socket_, &buffer, 1, &got, &flags, &receiving_, nullptr) == 0) {
            arrived_ = true;
            have_ += got;
            ended_ = got == 0;
        } else if (WSAGetLastError() != WSA_IO_PENDING) {
            bench::die_winsock("WSARecv");
        }
    }
    void send() {
        sending_ = {};
        WSABUF buffer = {message_size, out};
        DWORD sent = 0;
        if (WSASend(socket_, &buffer, 1, &sent, 0, &sending_, nullptr) != 0 &&
            WSAGetLastError() != WSA_IO_PENDING)
            bench::die_winsock("WSASend");
    }
    /// Waits for all of the message that a receive was posted for. @return false: the end of the stream.
    bool wait() {
        for (;;) {
            while (!arrived_) {
                DWORD size = 0;
                ULONG_PTR key = 0;
                OVERLAPPED* overlapped = nullptr;
                if (!GetQueuedCompletionStatus(port_, &size, &key, &overlapped, INFINITE))
                    bench::die_winsock("GetQueuedCompletionStatus");
                if (overlapped != &receiving_)
                    continue;  // a send that had to wait
                arrived_ = true;
                have_ += size;
                ended_ = size == 0;
            }
            arrived_ = false;
            if (ended_)
                return false;
            if (have_ == message_size) {
                have_ = 0;
                return true;
            }
            post_receive();
        }
    }
    SOCKET socket() const { return socket_; }

    char in[message_size] = {};
    char out[message_size] = {};

private:
    SOCKET socket_;
    HANDLE port_;
    OVERLAPPED receiving_ = {};
    OVERLAPPED sending_ = {};
    ULONG have_ = 0;
    bool arrived_ = false;
    bool ended_ = false;
};

void serve(bench::Lane lane) {
    const SOCKET listener = bench::winsock_listen_and_announce(lane);
    for (;;) {
        const SOCKET s = accept(listener, nullptr, nullptr);
        if (s == INVALID_SOCKET)
            bench::die_winsock("accept");
        End end(s);
        end.post_receive();
        while (end.wait()) {
            if (end.in[0] == check_lane)
                bench::require_lane_of_socket(s, lane);
            std::copy(end.in, end.in + message_size, end.out);
            end.post_receive();
            end.send();
        }
    }
}

void round_trip(End& end, char kind) {
    end.out[0] = kind;
    end.post_receive();
    end.send();
    if (!end.wait())
        bench::die("the server closed");
}

void measure(const bench::Arguments& arguments) {
    const bench::Lane lane = arguments.expected_lane();
    End end(bench::winsock_connect_to(arguments.port(), lane));
    uint64_t begin = bench::now_ns();
    while (bench::now_ns() - begin < warm_up_ns)
        round_trip(end, 'w');
    round_trip(end, check_lane);
    bench::require_lane_of_socket(end.socket(), lane);
    std::vector<uint32_t> samples(most_samples);
    const auto duration = static_cast<uint64_t>(arguments.seconds() * 1e9);
    size_t count = 0;
    begin = bench::now_ns();
    uint64_t before = begin;
    while (count < most_samples && before - begin < duration) {
        round_trip(end, 'm');
        const uint64_t after = bench::now_ns();
        samples[count++] = static_cast<uint32_t>(std::min<uint64_t>(after - before, UINT32_MAX));
        before = after;
    }
    round_trip(end, check_lane);
    bench::require_lane_of_socket(end.socket(), lane);
    samples.resize(count);
    std::sort(samples.begin(), samples.end());
    const auto percentile = [&](double p) {
        return samples[static_cast<size_t>(p * static_cast<double>(count - 1))];
    };
    std::printf("{\"p50_ns\": %u, \"p90_ns\": %u, \"p99_ns\": %u, \"max_ns\": %u, \"mean_ns\": %.1f, "
                "\"round_trips\": %zu}\n",
                percentile(0.5), percentile(0.9), percentile(0.99), samples.back(),
                static_cast<double>(before - begin) / static_cast<double>(count), count);
}

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    bench::start_winsock();
    if (arguments.is_server())
        serve(arguments.expected_lane());
    else
        measure(arguments);
}
