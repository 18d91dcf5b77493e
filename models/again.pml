/* Fusing again: a connection that has left the ring goes to a new one later, and may leave that too.

   The code does not do this yet: what has left stays with the kernel. The rules that it would have to keep are part of
   the model, so that nothing in the layout of a segment or in the meaning of its words stands in the way.

   Modelled     two ends, N bytes each way, a kernel queue of KERNEL and rings of RING bytes; one segment after the
                other, SEGMENTS in all, each with its own cuts and endings. An end sends, receives, goes one step on with
                the setup, or leaves, whichever comes; each of these is one step here, since handover.pml and leave.pml
                show that its parts may mix with those of others.
   Left out     sleeps and their wake-ups (arming.pml), ends and deaths (leave.pml, death.pml), the proof (possession.pml).
   Proved       each byte arrives once and in order, over any number of changes of lane; all of them arrive.
   The rules    - An end has one segment. It proposes or confirms the next one when it is done with the last: in both
                  directions nothing of it is left to be read, taken back or announced.
                - A segment is used once: the words of the next one are new.
                - A cut counts what the kernel lane carried, and what is taken back out of a ring counts there.

   Broken on purpose, each must be refused:
     BREAK_PROPOSE_EARLY   the acceptor proposes while it still reads from the last ring
     BREAK_CONFIRM_EARLY   the connector confirms while it still reads from, or takes back out of, the last ring
     BREAK_NOT_COUNTED     what is taken back is not counted as carried by the kernel
     BREAK_SAME_SEGMENT    the second time the first segment is used, with its old words
     BREAK_WITNESS         it is claimed that no byte ever comes through the last segment                       */

#ifndef N
#define N 3
#endif
#ifndef KERNEL
#define KERNEL 1
#endif
#ifndef RING
#define RING 2
#endif
#ifndef SEGMENTS
#define SEGMENTS 2
#endif

#define CONNECTOR 0
#define ACCEPTOR 1
#define NO_CUT 0

#define OPEN 0
#define CONSUMER_LEFT 1
#define PRODUCER_DONE 2

/* Direction d, what end d sends, of segment s (from 1 on). */
#ifdef BREAK_SAME_SEGMENT
#define AT(s, d) (d)
#else
#define AT(s, d) (2 * ((s) - 1) + (d))
#endif

chan kernel_queue[2] = [KERNEL] of { byte };
chan ring[2 * SEGMENTS] = [RING] of { byte };
byte cut[2 * SEGMENTS], ending[2 * SEGMENTS];
bool proposed[SEGMENTS + 1], confirmed[SEGMENTS + 1];

/* Of each end: the number of its segment (0: none yet), and where it stands with it. */
byte segment[2];
bool out_in_ring[2], in_in_ring[2];
bool cut_passed[2]; /* the ring was due once, or never will be */
bool left[2];
byte kernel_out[2], kernel_in[2], sent[2], received[2];

#define OUT AT(segment[me], me)
#define IN AT(segment[me], 1 - me)

/* Done with the segment: everything of it is behind us. */
#define DONE                                                                                                    \
    (segment[me] == 0 || (ending[OUT] != OPEN && ending[IN] != OPEN && !out_in_ring[me] && !in_in_ring[me] &&   \
                          (cut_passed[me] || cut[IN] == NO_CUT)))
#ifdef BREAK_PROPOSE_EARLY
#define MAY_PROPOSE true
#else
#define MAY_PROPOSE DONE
#endif
#ifdef BREAK_CONFIRM_EARLY
#define MAY_CONFIRM true
#else
#define MAY_CONFIRM DONE
#endif

inline new_segment() {
    segment[me]++;
    out_in_ring[me] = false;
    in_in_ring[me] = false;
    cut_passed[me] = false;
    left[me] = false
}

inline arrives(x) {
    assert(x == received[me]);
    received[me]++;
    x = 0
}

active [2] proctype end() {
    byte me = _pid;
    byte x;
end_of_all:
    do
    /* --- sending --- */
    :: atomic { sent[me] < N && !out_in_ring[me] && nfull(kernel_queue[me]) ->
        kernel_queue[me]!sent[me];
        sent[me]++;
        kernel_out[me]++ }
    :: atomic { sent[me] < N && out_in_ring[me] && ending[OUT] == OPEN && nfull(ring[OUT]) ->
        ring[OUT]!sent[me];
        sent[me]++ }
    /* return_to_kernel: the peer left and what it did not take goes over the kernel lane, before anything newer. */
    :: atomic { out_in_ring[me] && ending[OUT] == CONSUMER_LEFT && nempty(ring[OUT]) && nfull(kernel_queue[me]) ->
        ring[OUT]?x;
        kernel_queue[me]!x;
        x = 0;
#ifndef BREAK_NOT_COUNTED
        kernel_out[me]++
#endif
        }
    :: atomic { out_in_ring[me] && ending[OUT] == CONSUMER_LEFT && empty(ring[OUT]) -> out_in_ring[me] = false }

    /* --- receiving: the ring when its cut is reached, until its producer has turned away and nothing is in it --- */
    :: atomic { segment[me] > 0 && !cut_passed[me] && cut[IN] != NO_CUT && cut[IN] - 1 == kernel_in[me] ->
        in_in_ring[me] = true;
        cut_passed[me] = true }
    :: atomic { in_in_ring[me] && nempty(ring[IN]) ->
        ring[IN]?x;
#ifdef BREAK_WITNESS
        assert(segment[me] < SEGMENTS);
#endif
        arrives(x) }
    :: atomic { in_in_ring[me] && empty(ring[IN]) && ending[IN] == PRODUCER_DONE -> in_in_ring[me] = false }
    :: atomic { !in_in_ring[me] && nempty(kernel_queue[1 - me]) &&
                !(segment[me] > 0 && !cut_passed[me] && cut[IN] != NO_CUT && cut[IN] - 1 == kernel_in[me]) ->
        kernel_queue[1 - me]?x;
        kernel_in[me]++;
        arrives(x) }

    /* --- leave() --- */
    :: atomic { segment[me] > 0 && !left[me] && (me == CONNECTOR || confirmed[segment[me]]) &&
                (ending[OUT] != CONSUMER_LEFT || empty(ring[OUT])) &&
                (ending[IN] != PRODUCER_DONE || (empty(ring[IN]) && !in_in_ring[me])) ->
        left[me] = true;
        if
        :: ending[OUT] == OPEN -> ending[OUT] = PRODUCER_DONE
        :: else
        fi;
        out_in_ring[me] = false;
        if
        :: ending[IN] == OPEN ->
            ending[IN] = CONSUMER_LEFT;
            in_in_ring[me] = false;
            cut_passed[me] = true
        :: else
        fi }

    /* --- setup --- */
    :: atomic { me == ACCEPTOR && segment[me] < SEGMENTS && !proposed[segment[me] + 1] && MAY_PROPOSE ->
        proposed[segment[me] + 1] = true;
        new_segment() }
    :: atomic { me == CONNECTOR && segment[me] < SEGMENTS && proposed[segment[me] + 1] && MAY_CONFIRM ->
        confirmed[segment[me] + 1] = true;
        new_segment() }
    /* publish_cut; the acceptor when the connector has confirmed. */
    :: atomic { segment[me] > 0 && !left[me] && !out_in_ring[me] && cut[OUT] == NO_CUT && ending[OUT] == OPEN &&
                (me == CONNECTOR || confirmed[segment[me]]) ->
        cut[OUT] = kernel_out[me] + 1;
        out_in_ring[me] = true }
    od
}

active proctype judge() {
    timeout ->
    assert(received[CONNECTOR] == N && received[ACCEPTOR] == N)
}
