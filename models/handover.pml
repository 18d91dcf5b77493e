/* The hand-over: a connection in use moves from the kernel lane to the ring at any byte, each direction by
   itself, while a receiving and a sending thread at each end go on.

   Corresponds to src/stream/fuse.cpp (offer, look, confirm, advance, publish_cut), setup.cpp (Exclusive,
   KernelReceive, KernelSend) and the lane part of receive_some and send_some.

   Modelled     two ends with two threads each, N bytes each way, a kernel queue of KERNEL bytes and a ring of
                RING; every thread may go one step further with the setup after each of its calls, or not;
                the acceptor may find no offer, the connector may refuse a proposal. A byte is its offset in
                the stream. On x86-TSO plain stores wait in a store buffer (process `memory`) and a locked
                instruction empties it first; the stores that Dekker's rule needs visible are locked ones.
   Left out     the sleep itself (arming.pml: a thread that sleeps on link and socket is woken by either), how
                a ring works (ring.pml), what the proofs say (possession.pml: here two messages that pass), the comparison with the kernel's counters,
                endings (death.pml), relatives after a fork (they forbid the hand-over).
   Proved       each byte arrives once and in order (assertions in the receivers); no thread is for ever in a
                kernel receive or a wait while there are bytes for it: all come to their end (no invalid end
                state); what is refused goes on over the kernel.

   Broken on purpose, each must be refused:
     BREAK_PENDING_FENCE   kPending is stored plainly before the look at kernel_readers
     BREAK_READER_FENCE    a reader announces itself with a plain store
     BREAK_CUTTING_FENCE   `cutting` is stored plainly before the look at kernel_senders
     BREAK_SENDER_FENCE    a sender announces itself with a plain store
     BREAK_PROPOSE_READERS the acceptor proposes while a thread is in a kernel receive
     BREAK_CONFIRM_READERS the connector confirms while a thread is in a kernel receive
     BREAK_CUT_SENDERS     a cut is published while a thread is in a kernel send
     BREAK_CUT_LATE        the cut is published after the first ring byte
     BREAK_RING_FIRST      the receiver looks at the ring before it reached the cut
     BREAK_CUT_UNCONFIRMED the acceptor cuts before the connector has confirmed                            */

#ifndef N
#define N 2
#endif
#ifndef KERNEL
#define KERNEL 1
#endif
#ifndef RING
#define RING 1
#endif

#define CONNECTOR 0
#define ACCEPTOR 1

/* enum State */
#define CANDIDATE 0
#define OFFERED 1
#define PENDING 2
#define PROPOSED 3
#define FUSED 4
#define ONLY_KERNEL 5

#define NO_CUT 0

/* What end e sends goes into kernel_queue[e] or ring[e]. */
chan kernel_queue[2] = [KERNEL] of { byte };
chan ring[2] = [RING] of { byte };

/* The segment. */
byte cut[2];
bool confirmed;
/* The link: the acceptor's hello, the connector's answer with its sign, the proposal. */
bool hello_sent, sign_given, proposal_sent;

/* SharedHalf of each end. */
byte state[2];
bool setup_owner[2];
byte kernel_readers[2], kernel_senders[2];
bool cutting[2];
bool out_in_ring[2], in_in_ring[2];
byte kernel_out[2], kernel_in[2];
/* A bell came since this end last slept on the link. Only what is published in the ring rings: the note that the
   code sends with a cut is an extra. */
bool bell[2];

#define HAS_SEGMENT(e) (state[e] == PROPOSED || state[e] == FUSED)

/* One entry of a store buffer for each store that the broken variants make plain. */
#ifdef BREAK_PENDING_FENCE
bool pending_buffered[2];
#endif
#ifdef BREAK_READER_FENCE
bool reader_buffered[2];
#endif
#ifdef BREAK_CUTTING_FENCE
bool cutting_buffered[2];
#endif
#ifdef BREAK_SENDER_FENCE
bool sender_buffered[2];
#endif

#if defined(BREAK_PENDING_FENCE)
active [2] proctype memory() {
end_memory:
    do :: d_step { pending_buffered[_pid] -> pending_buffered[_pid] = false; state[_pid] = PENDING } od
}
#elif defined(BREAK_READER_FENCE)
active [2] proctype memory() {
end_memory:
    do :: d_step { reader_buffered[_pid] -> reader_buffered[_pid] = false; kernel_readers[_pid]++ } od
}
#elif defined(BREAK_CUTTING_FENCE)
active [2] proctype memory() {
end_memory:
    do :: d_step { cutting_buffered[_pid] -> cutting_buffered[_pid] = false; cutting[_pid] = true } od
}
#elif defined(BREAK_SENDER_FENCE)
active [2] proctype memory() {
end_memory:
    do :: d_step { sender_buffered[_pid] -> sender_buffered[_pid] = false; kernel_senders[_pid]++ } od
}
#endif

inline announce_pending() {
#ifdef BREAK_PENDING_FENCE
    pending_buffered[me] = true
#else
    state[me] = PENDING
#endif
}
/* The store that follows kPending; it leaves the buffer after it. */
inline set_state(to) {
    d_step {
#ifdef BREAK_PENDING_FENCE
        pending_buffered[me] = false;
#endif
        state[me] = to
    }
}
inline announce_reader() {
#ifdef BREAK_READER_FENCE
    reader_buffered[me] = true
#else
    kernel_readers[me]++
#endif
}
inline leave_reader() {
#ifdef BREAK_READER_FENCE
    d_step { if :: reader_buffered[me] -> reader_buffered[me] = false :: else -> kernel_readers[me]-- fi }
#else
    kernel_readers[me]--
#endif
}
inline announce_cutting() {
#ifdef BREAK_CUTTING_FENCE
    cutting_buffered[me] = true
#else
    cutting[me] = true
#endif
}
inline end_cutting() {
    d_step {
#ifdef BREAK_CUTTING_FENCE
        cutting_buffered[me] = false;
#endif
        cutting[me] = false
    }
}
inline announce_sender() {
#ifdef BREAK_SENDER_FENCE
    sender_buffered[me] = true
#else
    kernel_senders[me]++
#endif
}
inline leave_sender() {
#ifdef BREAK_SENDER_FENCE
    d_step { if :: sender_buffered[me] -> sender_buffered[me] = false :: else -> kernel_senders[me]-- fi }
#else
    kernel_senders[me]--
#endif
}

#ifdef BREAK_PROPOSE_READERS
#define MAY_PROPOSE true
#else
#define MAY_PROPOSE (kernel_readers[me] == 0)
#endif
#ifdef BREAK_CONFIRM_READERS
#define MAY_CONFIRM true
#else
#define MAY_CONFIRM (kernel_readers[me] == 0)
#endif
#ifdef BREAK_CUT_SENDERS
#define MAY_CUT true
#else
#define MAY_CUT (kernel_senders[me] == 0)
#endif
#ifdef BREAK_CUT_UNCONFIRMED
#define CONFIRMED true
#else
#define CONFIRMED (me == CONNECTOR || confirmed)
#endif
#ifdef BREAK_RING_FIRST
#define AT_THE_CUT (cut[1 - me] != NO_CUT)
#else
#define AT_THE_CUT (cut[1 - me] != NO_CUT && cut[1 - me] - 1 == kernel_in[me])
#endif

/* publish_cut; the caller owns the setup. */
inline publish_cut() {
    announce_cutting();
    if
    :: MAY_CUT ->
#ifdef BREAK_CUT_LATE
        out_in_ring[me] = true
#else
        cut[me] = kernel_out[me] + 1;
        out_in_ring[me] = true
#endif
    :: else
    fi;
    end_cutting()
}

/* A step of the setup, taken between two calls: offer, look or confirm. Who finds another thread at it leaves. */
inline setup_step() {
    atomic { if :: setup_owner[me] -> goto no_setup :: else -> setup_owner[me] = true fi }
    if
    :: me == CONNECTOR && state[me] == CANDIDATE -> state[me] = OFFERED
    :: me == ACCEPTOR && state[me] == CANDIDATE && state[CONNECTOR] == OFFERED && !hello_sent ->
        hello_sent = true
    :: me == CONNECTOR && state[me] == OFFERED && hello_sent && !sign_given -> sign_given = true
    :: me == ACCEPTOR && state[me] == CANDIDATE && sign_given ->
        announce_pending();
        /* kernel_senders are looked at as well in the code; for the proposal that is not needed. */
        if
        :: MAY_PROPOSE ->
            proposal_sent = true;
            if
            :: set_state(PROPOSED)
            fi
        :: else -> set_state(CANDIDATE)
        fi
    :: me == CONNECTOR && state[me] == OFFERED && proposal_sent ->
        announce_pending();
        if
        :: MAY_CONFIRM ->
            if
            :: confirmed = true;
               set_state(FUSED);
               publish_cut()
            :: set_state(ONLY_KERNEL)
            fi
        :: else -> set_state(OFFERED)
        fi
    :: else
    fi;
    setup_owner[me] = false;
no_setup:
    skip
}

/* advance: has the connector confirmed? Then our cut. */
inline advance() {
    if
    :: HAS_SEGMENT(me) && !out_in_ring[me] && CONFIRMED ->
        atomic { if :: setup_owner[me] -> goto no_advance :: else -> setup_owner[me] = true fi }
        if
        :: !out_in_ring[me] ->
            if :: state[me] == PROPOSED -> set_state(FUSED) :: else fi;
            publish_cut()
        :: else
        fi;
        setup_owner[me] = false
    :: else
    fi;
no_advance:
    skip
}

proctype sender(byte me) {
    byte n;
    do
    :: n == N -> break
    :: n < N ->
again:
        advance();
        if
        :: out_in_ring[me] ->
            ring[me]!n; /* asleep while it is full */
            bell[1 - me] = true;
#ifdef BREAK_CUT_LATE
            if :: cut[me] == NO_CUT -> cut[me] = kernel_out[me] + 1 :: else fi;
#endif
        :: else ->
            /* KernelSend */
            announce_sender();
            if
            :: cutting[me] || state[me] == PENDING ->
                leave_sender();
                !cutting[me] && state[me] != PENDING;
                goto again
            :: else
            fi;
            if
            :: out_in_ring[me] -> leave_sender(); goto again
            :: else
            fi;
            if
            :: !HAS_SEGMENT(me) -> kernel_queue[me]!n /* may block in the kernel */
            :: HAS_SEGMENT(me) && nfull(kernel_queue[me]) -> kernel_queue[me]!n
            :: HAS_SEGMENT(me) && full(kernel_queue[me]) ->
                leave_sender();
                nfull(kernel_queue[me]) || out_in_ring[me]; /* asleep for room, on link and socket */
                goto again
            fi;
            kernel_out[me]++;
            leave_sender()
        fi;
        n++;
        if :: setup_step() :: true fi
    od
}

proctype receiver(byte me) {
    byte n, x;
    do
    :: n == N -> break
    :: n < N ->
again:
        if
        :: !HAS_SEGMENT(me) ->
            /* KernelReceive */
            announce_reader();
            if
            :: HAS_SEGMENT(me) -> leave_reader(); goto again
            :: state[me] == PENDING -> leave_reader(); state[me] != PENDING; goto again
            :: else
            fi;
            kernel_queue[1 - me]?x; /* may block in the kernel */
            d_step { assert(x == n); kernel_in[me]++ }
            leave_reader()
        :: HAS_SEGMENT(me) && !in_in_ring[me] ->
            advance();
            if
            :: AT_THE_CUT -> in_in_ring[me] = true; goto again
            :: else
            fi;
            if
            :: atomic { nempty(kernel_queue[1 - me]) -> kernel_queue[1 - me]?x; assert(x == n); kernel_in[me]++ }
            :: empty(kernel_queue[1 - me]) ->
                /* asleep on link and socket */
                atomic { nempty(kernel_queue[1 - me]) || bell[me]; bell[me] = false }
                goto again
            fi
        :: in_in_ring[me] ->
            ring[1 - me]?x; /* asleep while it is empty */
            assert(x == n)
        fi;
        n++;
        if :: setup_step() :: true fi
    od
}

init {
    atomic { run sender(0); run sender(1); run receiver(0); run receiver(1) }
}
