// load: many clients in one thread, each with one request of 64 bytes under way; how many answers come per
// second. Its servers are epoll_server and port_server.
#include "load.h"

#include <sys/epoll.h>

#include <cstdio>
#include <vector>

#include "arguments.h"
#include "socket.h"

namespace {

constexpr uint64_t warm_up_ns = 500'000'000;

void request(int fd, char kind) {
    char bytes[bench::request_size] = {kind};
    bench::send_all(fd, bytes, sizeof bytes);
}

void answer(int fd) {
    char bytes[bench::request_size];
    if (!bench::receive_all(fd, bytes, sizeof bytes))
        bench::die("the server closed");
}

struct Run {
    uint64_t answers;
    uint64_t time;
};

/// Every client asks again as soon as it is answered, for `duration`; ends with nothing under way.
Run run(int set, const std::vector<int>& clients, uint64_t duration) {
    for (const int fd : clients)
        request(fd, 'r');
    uint64_t under_way = clients.size();
    uint64_t answers = 0;
    uint64_t counted = 0;
    const uint64_t begin = bench::now_ns();
    uint64_t now = begin;
    uint64_t end = 0;
    while (under_way != 0) {
        epoll_event events[64];
        const int count = epoll_wait(set, events, 64, -1);
        now = bench::now_ns();
        for (int i = 0; i < count; ++i) {
            answer(events[i].data.fd);
            ++answers;
            if (end == 0)
                request(events[i].data.fd, 'r');
            else
                --under_way;
        }
        if (end == 0 && now - begin >= duration) {
            end = now;
            counted = answers;
        }
    }
    return {counted, end - begin};
}

void check_lanes(const std::vector<int>& clients, bench::Lane expected) {
    for (const int fd : clients) {
        request(fd, bench::check_lane);
        answer(fd);
        bench::require_lane(fd, expected);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const bench::Arguments arguments(argc, argv);
    const int set = epoll_create1(EPOLL_CLOEXEC);
    std::vector<int> clients;
    for (int i = 0; i < static_cast<int>(arguments.number("clients", 50)); ++i) {
        clients.push_back(bench::connect_to(arguments.port()));
        epoll_event event{EPOLLIN, {}};
        event.data.fd = clients.back();
        if (epoll_ctl(set, EPOLL_CTL_ADD, clients.back(), &event) != 0)
            bench::die("epoll_ctl");
    }
    run(set, clients, warm_up_ns);
    check_lanes(clients, arguments.expected_lane());
    const Run measured = run(set, clients, static_cast<uint64_t>(arguments.seconds() * 1e9));
    check_lanes(clients, arguments.expected_lane());
    std::printf("{\"requests_per_second\": %.1f, \"requests\": %llu, \"lane\": \"%s\"}\n",
                static_cast<double>(measured.answers) * 1e9 / static_cast<double>(measured.time),
                static_cast<unsigned long long>(measured.answers),
                bench::lane_name(bench::lane_of(clients[0])));
}
