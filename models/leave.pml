/* Leaving the ring: an end goes back to the kernel lane at any byte, and what it did not take out of the ring comes
   to it over the kernel lane, once and in order; the other end may leave, end or be killed at the same time.

   Corresponds to src/stream/leave.cpp (leave, peer_left, return_to_kernel), to what send_some and receive_some do
   after it, and to prepare_close and before_shutdown (lifecycle.cpp).

   Modelled     two fused ends, a sending and a receiving thread each, N0 and N1 bytes, a ring of RING and a kernel
                queue of KERNEL bytes per direction; then each sender shuts down its direction. At any moment an end
                leaves. Sleeps with their words and the sticky edges of the two descriptors. For each direction one
                word settles who has the bytes that lie in the ring when both sides turn away from it: the consumer
                that leaves, or the producer that leaves or ends, whoever writes it first.
   Shapes       (default)     end 1 leaves
                ONE_WAY       bytes from end 0 only; end 1 ends its direction afterwards (smaller)
                LEAVES=0      end 0 leaves
                BOTH          both do
                KILL=e        end e is killed at any moment: FIN first, later the link's hang-up
                ANSWERED      end 0 ends only when all of its bytes have arrived
                QUIET         end 0 begins to send after leave() has returned, has no thread that waits, and ends only
                              when all of its bytes have arrived
                IDLE          (ONE_WAY) end 0 makes no call after its last byte until all have arrived: only its
                              steward (wait/steward.cpp) is there to take bytes back
                STEWARD       both ends have one, beside everything else
                KEEPS         who leaves with bytes unread waits until the other end begins to take them back, and
                              may at any moment have waited long enough: then it keeps them and stays
                AT_ONCE       (KEEPS) it does not wait, nor give the other end an occasion: it keeps them first
   Left out     how a ring works (ring.pml), how sleeps share bells (arming.pml), relatives (they share the state, and
                hear of the link being shut down as threads do), epoll sets, a kill between the two halves of taking
                back (the byte is sent and still in the ring: a relative would send it again).
                Without KEEPS bytes that nobody can send again are lost: those in the ring when their consumer has
                left and their producer is killed before its next call.
                KEEPS moves what is kept out of the ring in one step, where the code has a limit up to which the
                consumer reads; a producer that is killed while it takes back is left out.
   Proved       each byte arrives once and in order; the end comes after all of them; every thread ends.

   Broken on purpose, each must be refused:
     BREAK_NO_WORD        (BOTH) nobody looks whether the other side turned away first: bytes stay in the ring
     BREAK_CLOSE          a sender ends its direction without looking whether its consumer left
     BREAK_READY_FIRST    the receiver takes from the kernel without looking at the ring again
     BREAK_NOT_LOCKED     (LEAVES=0 ANSWERED) a sender looks at the state before it takes the lock, not under it
     BREAK_NO_TOKEN       (QUIET) who left does not arm: what is published after that is not noticed
     BREAK_ONLY_CLOSED    (LEAVES=0) the link is closed and not shut down: its own sleeping threads hear nothing
     BREAK_FIN_DECIDES    the peer is taken for dead because FIN came, although it had left
     BREAK_NO_STEWARD     (IDLE) nobody takes bytes back until the program makes a call
     BREAK_NO_CLAIM       (KEEPS) bytes are taken back without saying so first: some of them are kept as well
     BREAK_STEWARD_ONCE   (IDLE) the steward does not try again what the kernel's queue did not take   */

#ifdef IDLE
#define STEWARD
#endif

#ifndef RING
#define RING 1
#endif
#ifndef KERNEL
#define KERNEL 1
#endif
/* Bytes of one end. */
#ifndef N0
#define N0 2
#endif
#ifndef N1
#define N1 1
#endif
#define N(e) ((e) == 0 -> N0 : N1)

/* The end that leaves. */
#ifndef LEAVES
#define LEAVES 1
#endif

#ifdef KILL
#define LIVES provided (!dead[me])
#else
#define LIVES
#endif

#define OPEN 0
#define CONSUMER_LEFT 1
#define PRODUCER_DONE 2
#define TAKING_BACK 3
#define KEPT 4
#define SAID_IT_LEFT(d) (ending[d] != OPEN && ending[d] != PRODUCER_DONE)

#define AWAKE 0
#define ARMED 1
#define ALWAYS 2

/* Direction d is what end d sends. */
chan ring[2] = [RING] of { byte };
chan kernel_queue[2] = [KERNEL] of { byte };
byte ending[2];
#ifdef KEEPS
/* What the consumer of a direction kept: it is behind the limit of the ring for everybody else. */
chan kept[2] = [RING] of { byte };
#define UNREAD(d) (nempty(kept[d]) || (ending[d] != KEPT && nempty(ring[d])))
#define ALL_READ(d) (empty(kept[d]) && (ending[d] == KEPT || empty(ring[d])))
#define READ(d) if :: nempty(kept[d]) -> kept[d]?x :: empty(kept[d]) -> ring[d]?x fi
#else
#define UNREAD(d) nempty(ring[d])
#define ALL_READ(d) empty(ring[d])
#define READ(d) ring[d]?x
#endif
byte consumer_word[2], producer_word[2];
/* The kernel. */
bool fin[2];
bool link_up = true;
bool dead[2];
/* SharedHalf of each end. */
bool left[2];
bool out_done[2]; /* Lane::kKernelAgain: its own direction has left the ring */
bool send_lock[2], receive_lock[2];
/* What an end has noticed. */
bool sees_down[2];
/* Edges for the sender and the receiver of each end. */
bool sender_edge[2], receiver_edge[2];
/* Ghost: bytes taken from the program, and threads that came to their end. */
byte sent[2], received;
bool leave_returned;
bool sender_ended[2], receiver_ended[2];

#ifdef BREAK_FIN_DECIDES
#define PEER_LEFT (sees_down[me] && SAID_IT_LEFT(me) && !fin[1 - me])
#else
#define PEER_LEFT (sees_down[me] && SAID_IT_LEFT(me))
#endif
#define PEER_GONE (fin[1 - me] && !link_up && !SAID_IT_LEFT(me))
#define CONNECTION_ENDED (dead[1 - me])

inline link_goes_down() {
    link_up = false;
    sender_edge[0] = true;
    sender_edge[1] = true;
    receiver_edge[0] = true;
    receiver_edge[1] = true
}

/* return_to_kernel, with the lock held: as much as the kernel takes. */
inline take_back() {
#ifndef BREAK_NO_CLAIM
    d_step { if :: ending[me] == CONSUMER_LEFT -> ending[me] = TAKING_BACK :: else fi }
#endif
    do
    :: atomic {
            nempty(ring[me]) && !CONNECTION_ENDED && nfull(kernel_queue[me]) ->
            ring[me]?x; kernel_queue[me]!x; receiver_edge[1 - me] = true
       }
    :: nempty(ring[me]) && !CONNECTION_ENDED && full(kernel_queue[me]) -> break
    :: empty(ring[me]) || CONNECTION_ENDED -> break
    od;
    x = 0
}
inline lock_and_take_back() {
    atomic { !send_lock[me]; send_lock[me] = true }
    take_back();
    send_lock[me] = false
}

/* Whether this end was the first to turn away from its own direction. */
inline end_direction() {
    d_step { if :: ending[me] == OPEN -> ending[me] = PRODUCER_DONE :: else fi }
}

proctype sender(byte me) LIVES {
    byte n, x;
#ifdef QUIET
    leave_returned;
#endif
    do
    :: n == N(me) -> break
    :: n < N(me) ->
again:
        if
        :: left[me] || out_done[me] || PEER_GONE || CONNECTION_ENDED -> goto by_kernel
        :: !(left[me] || out_done[me] || PEER_GONE || CONNECTION_ENDED) && PEER_LEFT ->
            lock_and_take_back();
            if
            :: empty(ring[me]) || CONNECTION_ENDED -> goto by_kernel
            :: else -> goto wait
            fi
        :: else
        fi;
        atomic {
            !send_lock[me];
#ifndef BREAK_NOT_LOCKED
            if
            :: left[me] || out_done[me] -> goto again
            :: else
            fi;
#endif
            send_lock[me] = true
        }
        if
        :: nfull(ring[me]) ->
            atomic { ring[me]!n; n++; sent[me] = n; send_lock[me] = false }
            /* wake_consumer */
            d_step {
                if
                :: consumer_word[me] == ARMED ->
                    consumer_word[me] = AWAKE;
                    if :: link_up -> receiver_edge[1 - me] = true :: else fi
                :: consumer_word[me] == ALWAYS -> if :: !link_up -> sees_down[me] = true :: else fi
                :: else
                fi
            }
            if
            :: PEER_LEFT -> lock_and_take_back()
            :: else
            fi;
            goto next
        :: full(ring[me]) -> send_lock[me] = false
        fi;
wait:
        /* wait_for(kSend) */
        producer_word[me] = ARMED;
        if
        :: left[me] || out_done[me] || nfull(ring[me]) || (!link_up && !sees_down[me]) -> skip
        :: PEER_GONE -> skip
        :: PEER_LEFT && nfull(kernel_queue[me]) -> skip
        :: else -> atomic { sender_edge[me]; sender_edge[me] = false }
        fi;
        d_step {
            producer_word[me] = AWAKE;
            if :: !link_up -> sees_down[me] = true :: else fi
        }
        goto again;
by_kernel:
        if
        :: atomic { nfull(kernel_queue[me]) -> kernel_queue[me]!n; n++; sent[me] = n; receiver_edge[1 - me] = true }
        :: CONNECTION_ENDED -> goto done
        fi;
next:
        skip
    od;
#if defined(QUIET) || defined(ANSWERED) || defined(IDLE)
    received == N(me);
#endif
    /* shutdown(SHUT_WR), or close */
    atomic { !send_lock[me]; send_lock[me] = true }
#ifndef BREAK_CLOSE
    if
    :: left[me] -> skip
    :: else ->
        end_direction();
        do
        :: SAID_IT_LEFT(me) && nempty(ring[me]) && !CONNECTION_ENDED ->
            nfull(kernel_queue[me]) || CONNECTION_ENDED;
            take_back()
        :: else -> break
        od
    fi;
#endif
    send_lock[me] = false;
    atomic { fin[me] = true; receiver_edge[1 - me] = true; sender_edge[1 - me] = true }
done:
    sender_ended[me] = true
}

proctype receiver(byte me) LIVES {
    byte n, x;
    bool ready;
again:
    atomic {
        !receive_lock[me];
        if
        :: left[me] -> goto by_kernel
        :: !left[me] && UNREAD(1 - me) -> READ(1 - me); assert(x == n); x = 0; n++; received = n
        :: !left[me] && ALL_READ(1 - me) -> goto end_of_ring
        fi
    }
    d_step {
        if
        :: producer_word[1 - me] == ARMED ->
            producer_word[1 - me] = AWAKE;
            if :: link_up -> sender_edge[1 - me] = true :: else fi
        :: else
        fi
    }
    goto again;
end_of_ring:
    ready = nempty(kernel_queue[1 - me]) || fin[1 - me];
    if
    :: PEER_LEFT -> lock_and_take_back()
    :: else
    fi;
    if
    :: ready ->
#ifndef BREAK_READY_FIRST
        if
        :: UNREAD(1 - me) && !left[me] -> goto again
        :: else
        fi;
#endif
        goto once_by_kernel
    :: else
    fi;
    /* wait_for(kReceive) */
    d_step { if :: consumer_word[1 - me] == AWAKE -> consumer_word[1 - me] = ARMED :: else fi }
    if
    :: left[me] || UNREAD(1 - me) || nempty(kernel_queue[1 - me]) || fin[1 - me] || (!link_up && !sees_down[me]) ||
       (PEER_LEFT && nempty(ring[me]) && nfull(kernel_queue[me]))
    :: else -> atomic { receiver_edge[me]; receiver_edge[me] = false }
    fi;
    d_step {
        if :: consumer_word[1 - me] == ARMED -> consumer_word[1 - me] = AWAKE :: else fi;
        if :: !link_up -> sees_down[me] = true :: else fi
    }
    goto again;
by_kernel:
    nempty(kernel_queue[1 - me]) || fin[1 - me];
once_by_kernel:
    if
    :: atomic { nempty(kernel_queue[1 - me]) -> kernel_queue[1 - me]?x; assert(x == n); x = 0; n++; received = n; sender_edge[1 - me] = true }
        goto again
    :: empty(kernel_queue[1 - me]) && fin[1 - me] -> skip
    :: empty(kernel_queue[1 - me]) && !fin[1 - me] -> goto again
    fi;
    /* The end. */
    assert(n == sent[1 - me] || (dead[1 - me] && left[me]));
    receiver_ended[me] = true
}

#ifdef STEWARD
/* see_to() and try_again(): the link hung up; until nothing is left of what the peer did not take. */
proctype steward(byte me) LIVES {
    byte x;
    !link_up || sender_ended[me];
    if
    :: link_up -> goto done
    :: else
    fi;
    sees_down[me] = true;
    do
    :: PEER_LEFT && !left[me] && !CONNECTION_ENDED && nempty(ring[me]) ->
        lock_and_take_back();
#ifdef BREAK_STEWARD_ONCE
        break;
#endif
        nfull(kernel_queue[me]) || CONNECTION_ENDED || left[me]
    :: else -> break
    od;
done:
    skip
}
#endif

/* leave() */
proctype leaver(byte me) LIVES {
    byte x;
    atomic {
        !receive_lock[me] && !send_lock[me];
        if
        :: fin[1 - me] && nempty(ring[1 - me]) -> goto gone
        :: else
        fi;
        receive_lock[me] = true;
        send_lock[me] = true
    }
#ifndef BREAK_NO_WORD
    /* Our direction first: while bytes of it have to go back through us, nothing is changed. */
    end_direction();
    if
    :: SAID_IT_LEFT(me) && nempty(ring[me]) && !CONNECTION_ENDED ->
        take_back();
        if
        :: nempty(ring[me]) && !CONNECTION_ENDED -> goto stays
        :: else
        fi
    :: else
    fi;
    d_step { if :: ending[1 - me] == OPEN -> ending[1 - me] = CONSUMER_LEFT :: else fi }
    if
    :: ending[1 - me] == PRODUCER_DONE && nempty(ring[1 - me]) ->
        if :: ending[me] == PRODUCER_DONE -> out_done[me] = true :: else fi;
        goto stays
    :: else
    fi;
#ifdef KEEPS
    /* keeps_unread */
    if
    :: ending[1 - me] == CONSUMER_LEFT && nempty(ring[1 - me]) ->
#ifndef AT_ONCE
        atomic { link_goes_down() }
#endif
        consumer_word[1 - me] = ALWAYS;
        if
        :: ending[1 - me] != CONSUMER_LEFT ->
#ifdef AT_ONCE
            atomic { link_goes_down() }
#endif
            skip
        :: atomic {
                ending[1 - me] == CONSUMER_LEFT ->
                ending[1 - me] = KEPT;
                do
                :: nempty(ring[1 - me]) -> ring[1 - me]?x; kept[1 - me]!x
                :: empty(ring[1 - me]) -> break
                od;
                x = 0
           }
#ifdef AT_ONCE
            atomic { link_goes_down() }
#endif
            sees_down[me] = true;
            if :: ending[me] == PRODUCER_DONE -> out_done[me] = true :: else fi;
            goto stays
        fi
    :: else
    fi;
#endif
#else
    ending[1 - me] = CONSUMER_LEFT;
#endif
    atomic { left[me] = true; send_lock[me] = false; receive_lock[me] = false }
#ifdef BREAK_ONLY_CLOSED
    atomic { link_up = false; sender_edge[1 - me] = true; receiver_edge[1 - me] = true }
#else
    atomic { link_goes_down() }
#endif
#ifndef BREAK_NO_TOKEN
    /* After the link: who takes it must find that nobody hears. */
    consumer_word[1 - me] = ALWAYS;
#endif
    goto gone;
stays:
    atomic { send_lock[me] = false; receive_lock[me] = false }
gone:
    leave_returned = true
}

/* ONE_WAY: end 1 says nothing, and ends its direction when end 0 did. */
proctype ends_last() {
    sender_ended[0] || dead[0];
    atomic { !dead[1]; fin[1] = true; receiver_edge[0] = true; sender_ended[1] = true }
}

#ifdef KILL
active proctype killer() {
    dead[KILL] = true;
    atomic { fin[KILL] = true; sender_edge[1 - KILL] = true; receiver_edge[1 - KILL] = true }
    atomic { link_goes_down() }
}
#endif

init {
    atomic {
        run sender(0);
#ifdef ONE_WAY
        run ends_last();
#else
        run sender(1);
#endif
#if !defined(QUIET) && !defined(IDLE)
        run receiver(0);
#endif
#if defined(STEWARD) && !defined(BREAK_NO_STEWARD)
        run steward(0);
#ifndef ONE_WAY
        run steward(1);
#endif
#endif
        run receiver(1);
        run leaver(LEAVES);
#ifdef BOTH
        run leaver(1 - LEAVES)
#endif
    }
    timeout ->
    assert(dead[0] || sender_ended[0]);
    assert(dead[1] || sender_ended[1]);
    assert(dead[1] || receiver_ended[1]);
#if !defined(QUIET) && !defined(IDLE)
    assert(dead[0] || receiver_ended[0])
#endif
}
