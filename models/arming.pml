/* Wake-ups: how a sleep and a publication meet without a lost wake-up, and with few bells.

   Corresponds to arm_word, disarm_word and ring_sleeper (src/stream/sleep.h, sleep.cpp), to wait_for
   (src/wait/sleeper.cpp) and EpollSet::wait (src/wait/epoll_wait.cpp), and to what epoll does under them.

   Modelled     one peer that publishes N times on two streams in any order (a publication is data for a
                reader or room for a writer: the protocol is the same, so "stream" here means one word with
                its cursor); tokens, the token that is never deduplicated, the memory of the last token rung;
                links as queues of QUEUE bells, of which the kernel drops the next; edge-triggered epoll
                sets, which look at the link again when they hand an edge out and forget it if the link is
                empty then; draining of the links; on x86-TSO a plain store waits in a store buffer
                (process `memory`) and a locked instruction empties it first.
   Shapes       (default)     one waiter sleeps on both streams
                TWO_WAITERS   A sleeps on stream 0, B on streams 0 and 1, each in a set of its own; either
                              may leave for good once it found something
                DUPLEX        A sleeps on stream 0, B on stream 1, and both streams have the same link: a
                              thread that receives and one that sends on one connection
                SHARED_SET    two threads in one set; either may leave for good
                TIMEOUTS      (with SHARED_SET) the first may also leave by timeout or signal, and a third thread
                              reads a stream directly, without waiting for it
                CLOSES        one waiter; stream 0 is closed by another thread at any moment
                WITH_MARK     the default, with the mark that the code leaves in the word while it rings
                LATE_DISARM   the default, disarming only after the scan: as good, since the next sleep looks
                              again; the code disarms first because it saves bells
   Left out     timeouts and signals (they only wake more often), spinning, the tokens' bits, hang-ups (see
                death.pml), registration (every link is in every set from the start).
   Proved       when nothing can move any more, no waiter sleeps while one of its streams has something
                unread. Nothing here can move for ever: publications are counted.

   Broken on purpose, each must be refused:
     BREAK_SLEEPER_FENCE     the token is stored plainly, no barrier before the second look
     BREAK_PUBLISHER_FENCE   the cursor is stored plainly, no barrier before the look at the word
     BREAK_SECOND_LOOK       asleep without looking again
     BREAK_DEDUP_ANY         no bell because some other token was rung before
     BREAK_DEDUP_ALWAYS      (TWO_WAITERS) the token that always rings is deduplicated
     BREAK_TOKEN_REUSED      every sleep of a thread has the same token
     BREAK_OVERWRITE         (TWO_WAITERS) a token replaces another waiter's in place of making it ALWAYS
     BREAK_COUNT_EVENTS      the link is drained after so many events; bells come by armings
     BREAK_DRAIN_ALL         (DUPLEX) the last bell is drained as well: another set's edge is gone with it
     BREAK_NO_KICK           (SHARED_SET) a thread leaves the set and nobody arms again for the others
     BREAK_TIMEOUT_NO_KICK   (SHARED_SET TIMEOUTS) nobody arms again when a thread leaves with nothing
     BREAK_CLOSE_NO_KICK     (CLOSES) the closed link took the sleeper's bell with it                     */

#ifndef N
#define N 4
#endif
#ifndef QUEUE
#define QUEUE 3
#endif
/* Armings after which a link is drained: with the one bell left over, and one more arming by each of two
   waiters that have just counted, never more bells than a queue takes. */
#ifndef DRAIN_AFTER
#define DRAIN_AFTER 1
#endif

#define AWAKE 0
#define ALWAYS 255
/* What stands in the word while the publisher rings: its own mark with WITH_MARK, see death.pml. */
#ifdef WITH_MARK
#define WHILE_RINGING 254
#else
#define WHILE_RINGING AWAKE
#endif

#if defined(TWO_WAITERS)
#define WAITERS 2
#define MINE(w, s) ((w) == 1 || (s) == 0)
#define SET(w) (w)
#define LINK(s) (s)
#define MAY_LEAVE
#elif defined(DUPLEX)
#define WAITERS 2
#define MINE(w, s) ((w) == (s))
#define SET(w) (w)
#define LINK(s) 0
#elif defined(SHARED_SET)
#define WAITERS 2
#define MINE(w, s) true
#define SET(w) 0
#define LINK(s) (s)
#define MAY_LEAVE
#else
#define WAITERS 1
#define MINE(w, s) true
#define SET(w) 0
#define LINK(s) (s)
#endif

/* The segments. */
byte published[2], consumed[2];
byte word[2];
/* The kernel: bells that lie on each link; edges[set].on[link], what epoll has on its ready list; the event
   that gets one sleeper out of a set. */
byte bells[2];
typedef Edges { bool on[2] };
Edges edges[2];
bool kicked[2];
bool closed[2];
/* The sleeping side. */
byte last_token;
byte armings[2];
byte sleepers[2];
bool lock[2];
bool asleep[2];
bool has_left, timed_out;

#define UNREAD(s) (!closed[s] && published[s] != consumed[s])
#define UNREAD_OF(w) ((MINE(w, 0) && UNREAD(0)) || (MINE(w, 1) && UNREAD(1)))

#ifdef BREAK_SLEEPER_FENCE
byte buffered_word[2];
#endif
#ifdef BREAK_PUBLISHER_FENCE
byte buffered_published[2];
#endif

#if defined(BREAK_SLEEPER_FENCE) || defined(BREAK_PUBLISHER_FENCE)
/* The store buffers empty themselves, each entry at any moment. */
active proctype memory() {
end_memory:
    do
#ifdef BREAK_SLEEPER_FENCE
    :: d_step { buffered_word[0] != AWAKE -> word[0] = buffered_word[0]; buffered_word[0] = AWAKE }
    :: d_step { buffered_word[1] != AWAKE -> word[1] = buffered_word[1]; buffered_word[1] = AWAKE }
#else
    :: d_step { buffered_published[0] > 0 -> published[0] = published[0] + buffered_published[0]; buffered_published[0] = 0 }
    :: d_step { buffered_published[1] > 0 -> published[1] = published[1] + buffered_published[1]; buffered_published[1] = 0 }
#endif
    od
}
#endif

/* send_note: an edge in every set that has the link, unless the queue is full and the kernel drops it. */
inline ring(l) {
    d_step {
        if
        :: closed[l] || bells[l] == QUEUE
        :: else ->
            bells[l]++;
            edges[0].on[l] = true;
#if WAITERS == 2
            edges[1].on[l] = true
#endif
        fi
    }
}

#ifdef BREAK_DEDUP_ANY
#define RUNG_ALREADY (token != ALWAYS && rung != AWAKE)
#elif defined(BREAK_DEDUP_ALWAYS)
#define RUNG_ALREADY (token == rung)
#else
#define RUNG_ALREADY (token != ALWAYS && token == rung)
#endif
#ifdef BREAK_DEDUP_ALWAYS
#define REMEMBERED true
#else
#define REMEMBERED (token != ALWAYS)
#endif

inline publish(s) {
#ifdef BREAK_PUBLISHER_FENCE
    buffered_published[s]++
#else
    published[s]++
#endif
}

/* The exchange of ring_sleeper; a locked instruction, so the store buffer is empty after it. */
inline take_word(s) {
    d_step {
#ifdef BREAK_PUBLISHER_FENCE
        published[0] = published[0] + buffered_published[0];
        published[1] = published[1] + buffered_published[1];
        buffered_published[0] = 0;
        buffered_published[1] = 0;
#endif
        token = word[s];
        word[s] = WHILE_RINGING
    }
}

/* Taken away again, unless somebody armed meanwhile. */
inline remove_mark(s) {
#ifdef WITH_MARK
    d_step { if :: word[s] == WHILE_RINGING -> word[s] = AWAKE :: else fi }
#endif
}

active proctype peer() {
    byte n, s, token, rung;
    do
    :: n == N -> break
    :: n < N ->
        if :: s = 0 :: s = 1 fi;
        publish(s);
        if
        :: word[s] == AWAKE
        :: word[s] != AWAKE ->
            take_word(s);
            if
            :: token == AWAKE || RUNG_ALREADY
            :: else ->
                if :: REMEMBERED -> rung = token :: else fi;
                ring(LINK(s))
            fi;
#ifdef WITH_MARK
            remove_mark(s);
#endif
            token = 0
        fi;
        n++
    od
}

#ifdef BREAK_OVERWRITE
#define OTHERS_TOO token
#else
#define OTHERS_TOO ALWAYS
#endif

/* arm_word: a compare-and-swap, and an exchange if somebody else's token is there. */
inline arm(s) {
#ifdef BREAK_SLEEPER_FENCE
    buffered_word[s] = token
#else
    atomic {
        if
        :: !MINE(me, s) || closed[s] || word[s] == ALWAYS
        :: MINE(me, s) && !closed[s] && word[s] == AWAKE -> word[s] = token
        :: MINE(me, s) && !closed[s] && word[s] != AWAKE && word[s] != ALWAYS -> somebody_there = true
        fi
    }
    if
    :: somebody_there -> d_step { word[s] = OTHERS_TOO; somebody_there = false }
    :: !somebody_there
    fi
#endif
}

/* disarm_word: takes the token away only if it is this one. */
inline disarm(s) {
    d_step {
#ifdef BREAK_SLEEPER_FENCE
        if :: buffered_word[s] != AWAKE -> word[s] = buffered_word[s]; buffered_word[s] = AWAKE :: else fi;
#endif
        if :: MINE(me, s) && word[s] == token -> word[s] = AWAKE :: else fi
    }
}

#ifdef BREAK_DRAIN_ALL
#define LEFT_OVER 0
#else
#define LEFT_OVER 1
#endif

/* Under a lock, so that two drainers do not take the last one between them. */
inline drain(l) {
    if :: bells[l] > LEFT_OVER -> bells[l] = LEFT_OVER :: else fi;
    armings[l] = 0
}

/* Before arming: so no bell of the coming sleep is taken. */
inline drain_if_due(s) {
#ifdef BREAK_COUNT_EVENTS
    skip
#else
    d_step {
        if
        :: MINE(me, s) ->
            if :: armings[LINK(s)] >= DRAIN_AFTER -> drain(LINK(s)) :: else fi;
            armings[LINK(s)]++
        :: else
        fi
    }
#endif
}

/* What epoll does with one entry of its ready list when a thread comes for it. */
inline hand_out(l) {
    if
    :: edges[SET(me)].on[l] ->
        edges[SET(me)].on[l] = false;
        if
        :: bells[l] > 0 ->
            woken = true;
#ifdef BREAK_COUNT_EVENTS
            armings[l]++;
            if :: armings[l] > DRAIN_AFTER -> drain(l) :: else fi
#endif
        :: else
        fi
    :: else
    fi
}

#define SOMETHING_ON_LIST (kicked[SET(me)] || edges[SET(me)].on[0] || edges[SET(me)].on[1])

inline kick(set) {
    if :: sleepers[set] > 0 -> kicked[set] = true :: else fi
}

proctype waiter(byte me) {
    byte token;
    bool woken, somebody_there;
scan:
    atomic {
        !lock[SET(me)];
        woken = false;
        token = 0;
        if
        :: UNREAD_OF(me) -> goto found
        :: else -> lock[SET(me)] = true
        fi
    }
    atomic {
        drain_if_due(0);
        drain_if_due(1);
#ifdef BREAK_TOKEN_REUSED
        token = me + 1
#else
        last_token++;
        token = last_token
#endif
    }
    arm(0);
    arm(1);
#ifndef BREAK_SECOND_LOOK
    if
    :: MINE(me, 0) && UNREAD(0) -> goto not_now
    :: else
    fi;
#endif
    atomic {
#ifndef BREAK_SECOND_LOOK
        if
        :: MINE(me, 1) && UNREAD(1) -> goto not_now
        :: else
        fi;
#endif
        sleepers[SET(me)]++;
        asleep[me] = true;
        lock[SET(me)] = false
    }
end_asleep:
    atomic {
#ifdef TIMEOUTS
        if
        :: SOMETHING_ON_LIST
        :: me == 0 && !timed_out -> timed_out = true; asleep[me] = false; goto awake
        fi;
#else
        SOMETHING_ON_LIST;
#endif
        if :: kicked[SET(me)] -> kicked[SET(me)] = false; woken = true :: else fi;
        hand_out(0);
        hand_out(1);
        if :: !woken -> goto end_asleep :: else fi;
        asleep[me] = false
    }
#ifdef TIMEOUTS
awake:
#endif
    atomic { !lock[SET(me)]; lock[SET(me)] = true; sleepers[SET(me)]--; woken = false }
#ifdef LATE_DISARM
    woken = UNREAD_OF(me);
#endif
    disarm(0);
    atomic { disarm(1); lock[SET(me)] = false }
#ifdef LATE_DISARM
    if :: woken && UNREAD_OF(me) -> atomic { !lock[SET(me)]; goto found } :: else fi;
#endif
#ifdef TIMEOUTS
    /* One look at everything, and the answer. */
    if
    :: timed_out && me == 0 ->
        atomic {
            !lock[SET(me)];
            if
            :: UNREAD_OF(me) -> goto found
            :: else ->
#ifndef BREAK_TIMEOUT_NO_KICK
                kick(SET(me));
#endif
                has_left = true;
                goto gone
            fi
        }
    :: else
    fi;
#endif
    goto scan;
#ifndef BREAK_SECOND_LOOK
not_now:
    disarm(0);
    atomic { disarm(1); lock[SET(me)] = false }
#endif
found:
    /* Out of the wait, with the lock released; the program reads some of what is there, now or never. */
    atomic {
#ifndef BREAK_NO_KICK
        kick(SET(me));
#endif
#ifdef MAY_LEAVE
        if
        :: !has_left -> has_left = true; goto gone
        :: true
        fi;
#endif
        if
        :: MINE(me, 0) && UNREAD(0) -> consumed[0] = published[0]
        :: MINE(me, 1) && UNREAD(1) -> consumed[1] = published[1]
        :: !UNREAD_OF(me)
        fi;
#ifdef MAY_LEAVE
        if
        :: !has_left -> has_left = true; goto gone
        :: true
        fi;
#endif
        goto scan
    }
#ifdef MAY_LEAVE
gone:
    skip
#endif
}

#ifdef TIMEOUTS
active proctype direct_reader() {
end_nothing_to_read:
    atomic { UNREAD(0); consumed[0] = published[0] }
}
#endif

#ifdef CLOSES
active proctype closer() {
    atomic {
        !lock[0];
        closed[0] = true;
        edges[0].on[0] = false;
        word[0] = AWAKE;
#ifndef BREAK_CLOSE_NO_KICK
        kick(0)
#endif
    }
}
#endif

init {
    atomic {
        run waiter(0);
#if WAITERS == 2
        run waiter(1);
#endif
    }
    timeout ->
    assert(!(asleep[0] && UNREAD_OF(0)));
#if WAITERS == 2
    assert(!(asleep[1] && UNREAD_OF(1)))
#endif
}
