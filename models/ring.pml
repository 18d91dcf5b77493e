/* The elastic ring: one direction, one producing side, one consuming side.

   Corresponds to RingWriter::write, RingWriter::give_back and RingReader::read in src/segment/ring.cpp,
   step for step: each access to shared memory is one step here, and names are kept.

   Modelled     a small window of W bytes in a capacity of C, a page of PAGE bytes, N bytes in all; writes
                and reads of every size, with and without leave to grow, under a full and a small limit;
                pages given back at any moment the code may do so; on each side KILLS times a process that is
                killed between any two steps and replaced by a relative who starts from the shared state.
                Each cell holds the stream offset of the byte in it, so a wrong byte is always told apart.
                -DHANDLER: a signal handler's whole write in the middle of a write of its own thread.
   Left out     hostile peers (their values are masked, nothing is proved for them), bad buffers, peeking
                (a read without its commit), the size of a cursor. Waiting is a blocking guard: the
                protocol under it is in arming.pml. Stores are seen in program order, as x86-TSO and the
                release order of the head's swap give it; BREAK_RECORD_AFTER_HEAD is that order lost.
   Proved       every read returns the bytes of its offsets (assertion in the reader); the writer never
                stores into a cell whose byte is not yet consumed (assertion in the writer); nobody waits for
                ever (no invalid end state).

   Broken on purpose, each must be refused:
     BREAK_GROW_AT_RESTART     a GROW at the offset of the RESTART before it: the RESTART is never stored
     BREAK_RESTART_NOT_EMPTY   a RESTART while bytes are unread
     BREAK_SLOT_REUSE          a record that may be made before the reader passed the one before last
     BREAK_RECORD_AFTER_HEAD   head published before the record
     BREAK_ROOM                "the reader is below the growth" told by a distance instead of an order
     BREAK_TAIL_EARLY          the tail moved before the bytes are copied out
     BREAK_PREVIOUS            a reader that forgets the record before the current one
     BREAK_HANDLER             (with HANDLER) a handler writes as if it were "somebody who was first"     */

#ifndef W
#define W 2
#endif
#ifndef C
#define C 4
#endif
#ifndef PAGE
#define PAGE 1
#endif
#ifndef N
#define N 12
#endif
#ifndef KILLS
#define KILLS 1
#endif

#define RESTART 0
#define GROW 1

/* Jump, packed as in ring.h: offset << 3 | kind << 2 | number modulo 4. */
#define RECORD(at, kind, number) ((at) << 3 | (kind) << 2 | ((number) & 3))
#define AT(r) ((r) >> 3)
#define KIND(r) (((r) >> 2) & 1)
#define NUMBER(r) ((r) & 3)
#define WINDOW(r) (KIND(r) == RESTART -> W : C)
/* 64: a multiple of every window, so that the sum is not negative. */
#define PLACE(r, p) ((64 + (p) - AT(r) + (KIND(r) == RESTART -> 0 : W)) & (WINDOW(r) - 1))
#define LEAST(a, b) ((a) < (b) -> (a) : (b))

#define NOTHING 255
#define LIVE(cell) (cell != NOTHING && cell >= tail && cell < head)

/* Shared memory. */
byte head, tail, slot[2];
byte cell[C] = NOTHING;
/* Memory of one side, shared by its relatives. */
byte producer_jump, producer_tail;
byte consumer_jump, consumer_previous;

byte writer_kills = KILLS, reader_kills = KILLS;

/* Killed here; a relative starts again. */
#define MAY_DIE(kills) if :: kills > 0 -> kills--; goto again :: true fi
/* What a killed writer has copied and not published is nothing. */
#define WRITER_MAY_DIE \
    if :: writer_kills > 0 -> writer_kills--; i = 0; \
          do :: i == C -> break \
             :: i < C && cell[i] != NOTHING && cell[i] >= head -> cell[i] = NOTHING; i++ \
             :: i < C && (cell[i] == NOTHING || cell[i] < head) -> i++ \
          od; goto again :: true fi

#ifdef BREAK_ROOM
#define BELOW_GROWTH (t < AT(jump) || t - AT(jump) > C)
#else
#define BELOW_GROWTH (t < AT(jump))
#endif
#ifdef BREAK_RESTART_NOT_EMPTY
#define MAY_RESTART (h > AT(jump))
#else
#define MAY_RESTART (h > AT(jump) && t == h)
#endif
/* A record is made only when a byte was published under the one before. A RESTART stands in the slot that a
   GROW does not use, and the reader has passed the record before it: a growth's slot is always free. */
#ifdef BREAK_GROW_AT_RESTART
#define MAY_GROW (KIND(jump) == RESTART)
#else
#define MAY_GROW (KIND(jump) == RESTART && h > AT(jump))
#endif

#ifdef BREAK_PREVIOUS
#define PENDING false
#else
#define PENDING (AT(jump) > start)
#endif
#ifdef BREAK_TAIL_EARLY
#define EARLY true
#else
#define EARLY false
#endif

/* RingWriter::room */
inline compute_room() {
    if
    :: KIND(jump) == GROW && BELOW_GROWTH -> space = AT(jump) + C - W - h
    :: else -> space = WINDOW(jump) - (h - t)
    fi;
    space = LEAST(space, limit - (h - t));
    if :: space < 0 -> space = 0 :: else fi
}

/* RingWriter::change, without the handler's part */
inline change(kind) {
    producer_jump = RECORD(h, kind, NUMBER(jump) + 1);
    jump = producer_jump;
    WRITER_MAY_DIE
}

/* From the loads to the number of bytes that will be copied. Of what it touches only `tail` is the other
   side's to write, so the whole is one step, and the old values of `tail` are its choice of a cached one. */
inline prepare() {
    h = head;
    jump = producer_jump;
    t = producer_tail;
    compute_room();
    if
    :: space < size || PLACE(jump, h) + size > PAGE ->
        t = tail;
        producer_tail = t;
        if
        :: PLACE(jump, h) + size > PAGE && MAY_RESTART -> change(RESTART)
        :: else
        fi;
        compute_room()
    :: else
    fi;
    if
    :: space < LEAST(size, limit - LEAST(limit, h - t)) && may_grow && MAY_GROW ->
        change(GROW);
        compute_room()
    :: else
    fi;
    count = LEAST(size, space)
}

inline publish_jump() {
    slot[NUMBER(jump) & 1] = jump
}

inline publish_head() {
    assert(head == h);
    head = h + count
}

active proctype writer() {
    byte h, jump, t, size, limit, count, i, place;
    short space;
    bool may_grow;
again:
    atomic {
        h = 0; jump = 0; t = 0; size = 0; count = 0; i = 0; place = 0; space = 0;
        if
        :: head == N -> goto done
        :: head < N -> size = 1
        :: head < N -> size = 2
        :: head < N -> size = C
        fi;
        size = LEAST(size, N - head);
        if :: limit = C :: limit = C - 1 fi;
        if :: may_grow = true :: may_grow = false fi;
        prepare();
        limit = 0; may_grow = false;
        if
        :: count > 0
        :: count == 0 -> t != tail; goto again /* asleep until there is room */
        fi
    }
    do
    :: i < count ->
        d_step {
            place = PLACE(jump, h + i);
            assert(!LIVE(cell[place]));
            cell[place] = h + i;
            i++
        }
    :: i == count -> break
    od;
    atomic { WRITER_MAY_DIE }
#ifdef BREAK_RECORD_AFTER_HEAD
    d_step { publish_head() }
    publish_jump();
#else
    publish_jump();
    atomic { WRITER_MAY_DIE; publish_head() }
#endif
    goto again;
done:
    skip
}

/* One look of the reader at the record that may follow: from here on bytes up to `limit` lie as `current`
   says. Nothing to copy (limit == position) when it took a record instead. */
inline look_at_records() {
    limit = end;
    if
    :: pending && position == AT(jump) -> pending = false; limit = position
    :: pending && position != AT(jump) -> limit = LEAST(limit, AT(jump)); current = before
    :: !pending ->
        next = slot[(NUMBER(jump) + 1) & 1];
        current = jump;
        if
        :: NUMBER(next) == ((NUMBER(jump) + 1) & 3) && AT(next) == position ->
            before = jump; jump = next; limit = position
        :: NUMBER(next) == ((NUMBER(jump) + 1) & 3) && AT(next) > position -> limit = LEAST(limit, AT(next))
        :: else
        fi;
        next = 0
    fi
}

/* First the record, then the tail: once the tail is past it the producer may reuse its slot. */
inline commit() {
    if
    :: jump != first_jump ->
        consumer_previous = before;
        MAY_DIE(reader_kills);
        consumer_jump = jump
    :: else
    fi;
    MAY_DIE(reader_kills);
    assert(tail == start || EARLY);
    tail = position;
    /* Consumed bytes are nothing any more. */
    limit = 0;
    do
    :: limit == C -> limit = 0; break
    :: limit < C && cell[limit] < tail -> cell[limit] = NOTHING; limit++
    :: limit < C && cell[limit] >= tail -> limit++
    od
}

active proctype reader() {
    byte start, h, size, end, jump, first_jump, before, next, current, position, limit;
    bool pending;
again:
    atomic {
        start = tail; jump = 0; first_jump = 0; before = 0; current = 0; position = 0; limit = 0; end = 0;
        if :: start == N -> goto done :: start < N fi;
        head != start; /* asleep until there is data */
        h = head;
        assert(h >= start && h - start <= C);
        if :: size = 1 :: size = 2 :: size = C fi;
        first_jump = consumer_jump;
        jump = first_jump;
        before = consumer_previous;
        pending = PENDING;
        position = start;
        end = start + LEAST(size, h - start);
        h = 0; size = 0
    }
#ifdef BREAK_TAIL_EARLY
    tail = end;
#endif
    do
    :: position < end ->
        atomic { look_at_records() }
        do
        :: position < limit -> d_step { assert(cell[PLACE(current, position)] == position); position++ }
        :: position == limit -> break
        od
    :: position == end -> break
    od;
    atomic { commit(); goto again }
done:
    skip
}
