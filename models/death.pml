/* Death: one side is a family of relatives (one process, or several after a fork) of which any may be killed
   between any two steps; the survivor at the other end, and the relatives that are left, go on.

   Corresponds to FamilyLock (src/base/lock.h, lock.cpp), RingWriter::write and RingReader::read as far as their
   commit goes, ring_sleeper (src/stream/sleep.cpp), wait_for, peer_is_gone (send.cpp) and end_of_ring (receive.cpp).

   Modelled     the lock word with its owner's id and who may take it over, a copy of a byte into its cell or
                out of it, the swap of the cursor, the look at the sleeper's word, taking the token, the note;
                the end of the family's last process: first its TCP socket (FIN), later the link (hang-up), with
                anything in between; the survivor's look, arming, second look and sleep on both descriptors,
                edge-triggered. Each relative that was not killed does its part and ends as well.
   Shapes       (default)     the family sends SHARE bytes each, the survivor receives to the end
                FROM_SURVIVOR the survivor sends N bytes, the family receives
                RELATIVES=n   members of the family; with KEEP_ONE the last is never killed, and waits for an answer
                              after its part, so that no end of the connection wakes anybody
   Left out     jump records (ring.pml, with kills), other waits than one on one stream (arming.pml), the hand-over
                (handover.pml: it needs a family of one, so a kill in it ends the connection; leave.pml has kills
                of an end), the time that a takeover takes.
   Proved       every published byte is received once, in order, and is the one that its publisher wrote; the end
                is reported after all of them; nobody waits for ever: neither the survivor nor a relative. (A byte whose
                publisher was killed before it looked at the survivor's word may come with the next one: for all
                that anybody outside can tell that send had not happened yet.)

   Broken on purpose, each must be refused:
     BREAK_NO_TAKEOVER    the lock of a dead owner stays locked
     BREAK_ZOMBIE         (RELATIVES=2) only a reaped process counts as dead, and the one that would reap it is waiting
     BREAK_STEAL          (RELATIVES=2) a living owner's lock is taken
     BREAK_HEAD_EARLY     the head is swapped before the byte is copied
     BREAK_NO_SECOND_LOOK FIN seen, and the ring not looked at again: bytes before the end are lost
     BREAK_FULL_AND_FIN   (FROM_SURVIVOR) a full ring and FIN, and the link's hang-up does not end the wait for room
     BREAK_NO_MARK        (RELATIVES=2 KEEP_ONE) killed between taking the token and the note, and no mark of it is
                          left: later publications ring nobody
     BREAK_ONE_MARK       (RELATIVES=2 KEEP_ONE) all have the same mark: a late one takes the next one's away
     BREAK_NO_HEAL        (RELATIVES=2 KEEP_ONE) who is about to sleep on a full ring does not look whether the
                          reader was woken for what a killed relative put there; likewise on an empty one   */

#ifndef RELATIVES
#define RELATIVES 1
#endif
#ifndef SHARE
#define SHARE 2
#endif
#ifndef N
#define N 3
#endif
#ifndef C
#define C 2
#endif
#ifndef KILLS
#define KILLS RELATIVES
#endif
#if defined(KEEP_ONE)
#define MAY_BE_KILLED(me) (me < RELATIVES)
#else
#define MAY_BE_KILLED(me) true
#endif

#define NOBODY 0
/* The sleeper's word; above ARMED are marks. */
#define AWAKE 0
#define ARMED 1

/* The segment. A cell holds its writer. */
byte head, tail;
byte cell[C];
byte word;            /* the survivor sleeps, or somebody rings for it */
bool family_word;     /* somebody of the family does */
/* Ghost: who published each position, and what was received. */
byte published[8];
byte received;

/* The family's shared memory. */
byte lock_owner;      /* send_lock or receive_lock */

/* The kernel. */
bool dead[RELATIVES + 1];
byte living = RELATIVES;
byte kills = KILLS;
bool fin, hang_up;
/* Edges that the survivor's epoll set has for it. */
bool edge_link, edge_kernel;
/* And each relative's, for link and socket together. */
bool edge[RELATIVES + 1];
bool survivor_done;

/* Between any two steps. `life` is left to the end of the process. */
#define MAY_DIE \
    if \
    :: MAY_BE_KILLED(me) && kills > 0 -> kills--; goto killed \
    :: true \
    fi

#if defined(BREAK_NO_TAKEOVER) || defined(BREAK_ZOMBIE)
#define GONE(owner) false
#elif defined(BREAK_STEAL)
#define GONE(owner) true
#else
#define GONE(owner) dead[owner]
#endif

inline lock() {
    atomic {
        if
        :: lock_owner == NOBODY -> lock_owner = me
        :: lock_owner != NOBODY && GONE(lock_owner) -> lock_owner = me
        fi
    }
    MAY_DIE
}
inline unlock() {
    lock_owner = NOBODY;
    MAY_DIE
}

/* The survivor's note, or the end of its socket: an edge in every relative's set. */
inline edges_for_all() {
    edge[RELATIVES] = true;
    edge[1] = true
}
inline wake_family() {
    if
    :: family_word -> d_step { family_word = false; edges_for_all() }
    :: else
    fi
}

/* wake_consumer or wake_producer, and ring_sleeper. While somebody rings, a mark of his own stands in place of the
   token: whoever comes after one who was killed there finds that something is to be done, and who is late takes
   nobody else's mark away. */
#ifdef BREAK_ONE_MARK
#define MARK 2
#else
#define MARK (1 + me)
#endif
inline wake() {
    if
    :: word != AWAKE ->
#ifdef BREAK_NO_MARK
        atomic { token = word; word = AWAKE; MAY_DIE }
#else
        atomic { mark = MARK; token = word; word = mark; MAY_DIE }
#endif
        if
        :: token != AWAKE -> atomic { edge_link = true; MAY_DIE }
        :: else
        fi;
        d_step {
            token = AWAKE;
            if :: mark != AWAKE && word == mark -> word = AWAKE :: else fi;
            mark = AWAKE
        }
    :: else
    fi;
    MAY_DIE
}

/* What the kernel does at the end of a process: the relatives' descriptors keep socket and link open. */
inline end_of_process() {
    atomic {
        dead[me] = true;
        living--;
        if
        :: living > 0 -> goto gone
        :: else
        fi
    }
    d_step { fin = true; edge_kernel = true }
    d_step { hang_up = true; edge_link = true }
gone:
    skip
}

/* wait_for: arm, look again, see that the other side was woken, sleep. */
inline family_sleep(ready) {
    family_word = true;
    if
    :: ready
    :: else ->
#ifndef BREAK_NO_HEAL
        wake();
#endif
        atomic { edge[me]; edge[me] = false }
    fi;
    MAY_DIE
}

/* The survivor's: its own token only. */
inline disarm() {
    d_step { if :: word == ARMED -> word = AWAKE :: else fi }
}

#ifndef FROM_SURVIVOR

proctype relative(byte me) {
    byte n, h, mine;
    byte token, mark;
    do
    :: n == SHARE -> break
    :: n < SHARE ->
        lock();
        atomic {
            h = head;
            if
            :: h - tail == C -> goto no_room
            :: else
            fi
        }
#ifdef BREAK_HEAD_EARLY
        atomic { published[h] = me; head = h + 1; mine = head; MAY_DIE }
        cell[h % C] = me;
#else
        atomic { cell[h % C] = me; MAY_DIE }
        /* The swap; a thread that had its lock stolen fails here, and has written its byte all the same. */
        atomic {
            if
            :: head == h -> published[h] = me; head = h + 1; mine = head; n++
            :: else
            fi;
            MAY_DIE
        }
#endif
        unlock();
        wake();
        goto next;
no_room:
        unlock();
        family_sleep(head - tail < C || survivor_done);
next:
        h = 0;
#ifdef BREAK_HEAD_EARLY
        n++
#endif
    od;
#ifdef KEEP_ONE
    /* The answer: all that this one sent has arrived. */
    (me < RELATIVES) || received >= mine;
#endif
killed:
    end_of_process()
}

proctype survivor() {
    byte h;
    bool ended;
look:
    /* from_ring */
    if
    :: head != tail ->
        d_step {
            assert(cell[tail % C] == published[tail]);
            received++;
            tail++
        }
        wake_family();
        goto look
    :: else
    fi;
    /* end_of_ring */
    ended = fin;
    if
    :: ended ->
#ifndef BREAK_NO_SECOND_LOOK
        if
        :: head != tail -> goto look
        :: else
        fi;
#endif
        goto end_of_stream
    :: else
    fi;
    word = ARMED;
    if
    :: head != tail -> disarm(); goto look
    :: else
    fi;
    if
    :: fin -> disarm(); goto look
    :: else
    fi;
    atomic { edge_link || edge_kernel; edge_link = false; edge_kernel = false }
    disarm();
    goto look;
end_of_stream:
    assert(received == head);
    atomic { survivor_done = true; edges_for_all() }
}

#else

proctype relative(byte me) {
    byte position, x;
    byte token, mark;
    do
    :: survivor_done && head == tail -> break
    :: else ->
        if
        :: head == tail -> family_sleep(head != tail || survivor_done); goto next
        :: else
        fi;
        lock();
        atomic {
            position = tail;
            if
            :: position == head -> goto nothing_there
            :: else -> x = cell[position % C]
            fi;
            MAY_DIE
        }
        atomic {
            if
            :: tail == position -> assert(x == position + 1); tail = position + 1; received++
            :: else
            fi;
            MAY_DIE
        }
        unlock();
        wake();
        goto next;
nothing_there:
        unlock();
next:
        atomic { position = 0; x = 0 }
    od;
killed:
    end_of_process()
}

proctype survivor() {
    byte n;
    do
    :: n == N -> break
    :: n < N ->
again:
        /* peer_is_gone: the kernel's word, and the link's when that is RDHUP alone */
        if
        :: fin && hang_up -> break
        :: else
        fi;
        if
        :: head - tail < C -> atomic { cell[head % C] = n + 1; head++; n++ }; wake_family()
        :: else ->
            word = ARMED;
            if
            :: head - tail < C -> disarm(); goto again
            :: else
            fi;
            if
            :: fin && hang_up -> disarm(); goto again
            :: else
            fi;
#ifdef BREAK_FULL_AND_FIN
            /* The wait goes on until there is room, whatever woke it. */
            atomic { head - tail < C; edge_link = false; edge_kernel = false };
#else
            atomic { edge_link || edge_kernel; edge_link = false; edge_kernel = false };
#endif
            disarm();
            goto again
        fi
    od;
    atomic { survivor_done = true; edges_for_all() }
}

#endif

init {
    atomic {
        byte i = 1;
        do
        :: i > RELATIVES -> break
        :: else -> run relative(i); i++
        od;
        run survivor()
    }
}
