// See epoll.h.
#include "epoll.h"

#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace differential {

namespace {

/// User data that a mistake would garble: all 64 bits in use, the same in every process.
uint64_t tag_of(const std::string& name) {
    uint64_t hash = 0xcbf29ce484222325U;
    for (const char c : name)
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
}

std::string joined(std::vector<std::string> parts) {
    std::sort(parts.begin(), parts.end());
    std::string text;
    for (const auto& part : parts)
        text += (text.empty() ? "" : " ") + part;
    return "[" + text + "]";
}

timespec time_of(int milliseconds) { return {milliseconds / 1000, milliseconds % 1000 * 1'000'000L}; }

void poll_once(Selector selector, const std::vector<Interest>& interests, int timeout, Outcome& outcome) {
    std::vector<pollfd> entries;
    entries.reserve(interests.size());
    for (const auto& interest : interests)
        entries.push_back({interest.end.fd(), interest.events, 0});
    const timespec time = time_of(timeout);
    outcome.value = selector == Selector::kPoll
                        ? ::poll(entries.data(), entries.size(), timeout)
                        : ::ppoll(entries.data(), entries.size(), timeout < 0 ? nullptr : &time, nullptr);
    outcome.error = errno;
    std::vector<std::string> parts;
    for (size_t i = 0; i < entries.size(); ++i)
        if (entries[i].revents != 0)
            parts.push_back(interests[i].end.name() + ":" +
                            event_names(static_cast<unsigned short>(entries[i].revents)));
    outcome.text = joined(parts);
}

void select_once(Selector selector, const std::vector<Interest>& interests, int timeout, Outcome& outcome) {
    fd_set sets[3];
    for (auto& set : sets)
        FD_ZERO(&set);
    static constexpr short kEvents[] = {POLLIN, POLLOUT, POLLPRI};
    int most = 0;
    for (const auto& interest : interests) {
        most = std::max(most, interest.end.fd() + 1);
        for (int i = 0; i < 3; ++i)
            if ((interest.events & kEvents[i]) != 0)
                FD_SET(interest.end.fd(), &sets[i]);
    }
    timespec time = time_of(timeout);
    timeval value{time.tv_sec, time.tv_nsec / 1000};
    outcome.value =
        selector == Selector::kSelect
            ? ::select(most, &sets[0], &sets[1], &sets[2], timeout < 0 ? nullptr : &value)
            : ::pselect(most, &sets[0], &sets[1], &sets[2], timeout < 0 ? nullptr : &time, nullptr);
    outcome.error = errno;
    std::vector<std::string> parts;
    if (outcome.value >= 0)
        for (const auto& interest : interests) {
            std::string ready;
            for (int i = 0; i < 3; ++i)
                if (FD_ISSET(interest.end.fd(), &sets[i]))
                    ready += "rwx"[i];
            if (!ready.empty())
                parts.push_back(interest.end.name() + ":" + ready);
        }
    outcome.text = joined(parts);
}

std::string title_of(Selector selector, const std::vector<Interest>& interests, int timeout) {
    static constexpr const char* kNames[] = {"poll", "ppoll", "select", "pselect"};
    std::string text = kNames[static_cast<int>(selector)];
    for (const auto& interest : interests)
        text += " " + interest.end.name() + ":" + event_names(static_cast<unsigned short>(interest.events));
    return text + format(" for %d", timeout);
}

Body body_of(Selector selector, const std::vector<Interest>& interests, int timeout) {
    return [selector, interests, timeout](Outcome& outcome) {
        if (selector == Selector::kPoll || selector == Selector::kPpoll)
            poll_once(selector, interests, timeout, outcome);
        else
            select_once(selector, interests, timeout, outcome);
    };
}

}  // namespace

EpollSet::EpollSet(Script& script, Actor actor, const std::string& name) : end_(script, actor, -1, name) {
    end_.quietly("epoll_create1",
                 [&](Outcome&) { end_ = End(script, actor, ::epoll_create1(EPOLL_CLOEXEC), name); });
}

Outcome EpollSet::control(int operation, const char* name, const End& end, unsigned events) {
    const uint64_t tag = tag_of(end.name());
    names_[tag] = end.name();
    return end_.call(format("%s %s", name, end.name().c_str()) +
                         (operation == EPOLL_CTL_DEL ? "" : " " + event_names(events)),
                     [&]() -> long {
                         epoll_event event{};
                         event.events = events;
                         event.data.u64 = tag;
                         return ::epoll_ctl(end_.fd(), operation, end.fd(), &event);
                     });
}

void EpollSet::describe(long found, const epoll_event* events, Outcome& outcome) const {
    outcome.value = found;
    outcome.error = errno;
    std::vector<std::string> parts;
    for (long i = 0; i < found; ++i) {
        const auto name = names_.find(events[i].data.u64);
        parts.push_back((name != names_.end() ? name->second : "?") + ":" + event_names(events[i].events));
    }
    outcome.text = joined(parts);
}

Outcome EpollSet::wait(int timeout, int most) const {
    return end_.call_with_text(format("epoll_wait %d", most), [&](Outcome& outcome) {
        epoll_event events[16];
        const int found = ::epoll_wait(end_.fd(), events, std::min(most, 16), timeout);
        describe(found, events, outcome);
    });
}

Outcome EpollSet::pwait(int timeout, const sigset_t* mask) const {
    return end_.call_with_text("epoll_pwait", [&](Outcome& outcome) {
        epoll_event events[16];
        const int found = ::epoll_pwait(end_.fd(), events, 16, timeout, mask);
        describe(found, events, outcome);
    });
}

Outcome EpollSet::pwait2(long nanoseconds) const {
    return end_.call_with_text("epoll_pwait2", [&](Outcome& outcome) {
        epoll_event events[16];
        const timespec time{0, nanoseconds};
        const int found = ::epoll_pwait2(end_.fd(), events, 16, &time, nullptr);
        describe(found, events, outcome);
    });
}

Pending EpollSet::start_wait(int timeout) const {
    return end_.start(format("epoll_wait for %d", timeout), [set = *this, timeout](Outcome& outcome) {
        epoll_event events[16];
        const int found = ::epoll_wait(set.end_.fd(), events, 16, timeout);
        set.describe(found, events, outcome);
    });
}

void EpollSet::await_ready(const End& end) const {
    end_.quietly("await " + end.name(), [&](Outcome&) {
        await([&] {
            epoll_event events[16];
            const int found = ::epoll_wait(end_.fd(), events, 16, 0);
            return std::any_of(events, events + std::max(found, 0), [&](const epoll_event& event) {
                return event.data.u64 == tag_of(end.name());
            });
        });
    });
}

std::pair<End, End> make_pipe(Script& script, Actor actor, const std::string& name) {
    int fds[2] = {-1, -1};
    const End end(script, actor, -1, name);
    end.quietly("pipe", [&](Outcome&) {
        if (::pipe(fds) != 0)
            script.fail("no pipe");
    });
    return {End(script, actor, fds[0], name + ".r"), End(script, actor, fds[1], name + ".w")};
}

Outcome wait_for(Selector selector, const std::vector<Interest>& interests, int timeout) {
    const End& first = interests.front().end;
    return first.script().run(first.actor(), title_of(selector, interests, timeout),
                              body_of(selector, interests, timeout));
}

Pending start_wait_for(Selector selector, const std::vector<Interest>& interests, int timeout) {
    return interests.front().end.start(title_of(selector, interests, timeout),
                                       body_of(selector, interests, timeout));
}

}  // namespace differential
