/* Bytes that are held back: MSG_MORE and TCP_CORK. Whatever the order of steps, they are shown in the end.

   Corresponds to src/stream/held.cpp, the end of send_some (src/stream/send.cpp), option_set
   (src/posix/sockets.cpp), before_fork (src/table/table.cpp), mind, mind_held and mind_no_more
   (src/wait/steward.cpp), seen_up_to (src/segment/ring.h) and show_end.

   Modelled     one sender that sends SENDS bytes, each with or without MSG_MORE, on a socket that begins corked
                or not; a thread that takes the cork away (CORKS 1) and corks again (2); the steward, asleep for good
                or for a while; a fork; an exec, which ends the steward's care and the other threads' after it;
                the reader, which arms its word, looks again and sleeps; the sender's end.
   The clock    passes when nothing else can move, and may pass before.
   Shapes       (default)  the clock passes
                NO_CLOCK   it never does: what a cork held is shown by who takes the cork away
                FORKS      the process forks, as a step of its own at any moment: nobody looks at the clock
                           for the connection from then on
                EXECS      the process executes another program, at any moment between two sends
                DIES       the sender is killed between any two steps; the reader learns of the end
                UNREAD     without the reader: in the end nothing is held, which leaves room for more sends
   Left out     the limit of 32 KiB, several streams (a full list of them holds nothing back), relatives after
                the fork, MSG_MORE behind unread bytes (a refusal to hold, as with relatives).
   Proved       when nothing can move any more, the reader has seen every byte; with NO_CLOCK, every byte that
                no MSG_MORE held, if there is no cork.

   Broken on purpose, each must be refused:
     BREAK_SILENT      a send that held bytes back rings nobody, without a second look whether it still does
     BREAK_REMEMBER    (NO_CLOCK) no second look at the cork after `held` was set
     BREAK_FORGET_LAST `held` is taken away first, and then the stream forgotten
     BREAK_QUIET       the steward stops looking at the clock without a last look at the list
     BREAK_MINDS       (EXECS) whether the steward still cares is looked at before the stream is on the list
     BREAK_FORK        (FORKS) no second look at the relatives
     BREAK_NO_END      (DIES) the reader leaves what is held where it is                                      */

#ifndef SENDS
#define SENDS 2
#endif
#ifndef CORKS
#define CORKS 1
#endif

/* The segment. */
byte head, tail;
byte held;                    /* position plus one; 0 for none */
bool armed, bell;             /* the reader's word, and the wake-up */
bool ended;                   /* as the kernel's connection says */

/* The sending process. */
bool corked;
bool by_cork;                 /* what is held, is so because of a cork alone */
bool entry, since;
bool minds = true, minding, called;
bool had_relatives;
bool executed;                /* only the sender goes on, in a new image */
byte running;                 /* who may still change something */

#define DEAD (ended)

inline wake() {
    d_step { if :: armed -> armed = false; bell = true :: else fi }
}

/* forget(), then the exchange. */
inline show_held_now() {
#ifdef BREAK_FORGET_LAST
    atomic { was = held; held = 0 };
    if :: entry -> since = false; entry = false :: else fi;
#else
    if :: entry -> since = false; entry = false :: else fi;
    atomic { was = held; held = 0 };
#endif
    if :: was != 0 -> wake() :: else fi;
    was = 0
}

inline show_held() {
    if :: held != 0 -> show_held_now() :: else fi
}

/* remember() and mind(); `kept` says whether somebody will look at the clock. */
inline remember() {
#ifdef BREAK_MINDS
    kept = minds;
    if
    :: kept && !entry ->
        entry = true;
        since = true;
        if :: !minding -> minding = true; called = true :: else fi
    :: else -> kept = false
    fi
#else
    if
    :: !entry ->
        entry = true;
        since = true;
        kept = minds;
        if
        :: kept -> if :: !minding -> minding = true; called = true :: else fi
        :: else -> since = false; entry = false
        fi
    :: else -> kept = false  /* another place of the list in the code; here there is one */
    fi
#endif
}

proctype sender() {
    byte n, was;
    bool more, holds, kept, silent;
    do
    :: n == SENDS || DEAD -> break
    :: n < SENDS && !DEAD ->
        if :: more = true :: more = false fi;
        holds = false;
        if
        :: !more && !corked
        :: else ->
            if
            :: held != 0 -> holds = true; if :: more -> by_cork = false :: else fi
            :: else ->
                d_step { held = head + 1; by_cork = !more };
#ifdef BREAK_FORK
                kept = true;
#else
                kept = !had_relatives;
#endif
#ifndef BREAK_REMEMBER
                if :: kept && !more -> kept = corked :: else fi;
#endif
                if :: kept -> remember() :: else fi;
                if
                :: kept -> holds = true
                :: else -> held = 0
                fi
            fi
        fi;
        if
        :: DEAD -> break
        :: atomic { !DEAD -> head++ }
        fi;
        silent = false;
        if
        :: !holds -> show_held()
#ifdef BREAK_SILENT
        :: else -> silent = true
#else
        :: else -> silent = (held != 0)
#endif
        fi;
        if :: DEAD -> break :: else fi;
        if :: !silent -> wake() :: else fi;
        n++
#ifdef EXECS
        ;
        if
        :: !executed ->
            /* mind_no_more(), with the other threads gone after it. */
            minds = false;
            minding = false;
            if :: entry -> show_held_now() :: else fi;
            executed = true
        :: true
        fi
#endif
    od;
    running--
}

#if CORKS > 0 && !defined(EXECS)
proctype corker() {
    byte n, was;
    do
    :: n == CORKS || DEAD -> break
    :: n < CORKS && !DEAD ->
        if
        :: n % 2 == 0 -> corked = false; show_held()
        :: else -> corked = true
        fi;
        n++
    od;
#ifdef NO_CLOCK
    corked = false;
    show_held();
#endif
    running--
}
#endif

#ifdef FORKS
proctype forker() {
    byte was;
    had_relatives = true;
    show_held();
    minds = false;  /* nobody's clock, so that only the rule counts */
    running--
}
#endif

#ifndef NO_CLOCK
proctype steward() {
    byte was;
    bool due;
    do
    :: executed || DEAD -> break
    :: else ->
        /* Asleep for good, or for a while. */
end_asleep:
        if
        :: atomic { called -> called = false; due = false }
        :: atomic { minding && since -> due = true }    /* time passes while others could move */
        :: atomic { minding && timeout -> due = true }
        :: executed || DEAD -> break
        fi;
        if
        :: !minding
        :: minding ->
            if
            :: entry -> if :: since && due -> show_held_now() :: else fi
            :: else ->
                minding = false;
#ifndef BREAK_QUIET
                if :: entry -> minding = true :: else fi
#endif
            fi
        fi
    od
}
#endif

#ifdef DIES
proctype death() {
    ended = true;
    /* The bell of the kernel: the reader sleeps on its connection as well. */
    d_step { armed = false; bell = true }
}
#endif

#ifdef UNREAD
proctype judge() {
#ifdef NO_CLOCK
    running == 0 && (held == 0 || !by_cork)
#else
    running == 0 && held == 0
#endif
}
#else

/* What the reader can see. */
inline look() {
    here = head;
    d_step {
        mark = held;
        if
        :: mark != 0 && mark - 1 >= tail && mark - 1 < here -> here = mark - 1
        :: else
        fi
    }
}

proctype reader() {
    byte here, mark;
    do
    :: look();
        if
        :: here != tail -> tail = here
        :: else ->
            armed = true;
            look();
            if
            :: here != tail -> armed = false
            :: else ->
                if
                :: bell -> bell = false
                :: ended ->
#ifndef BREAK_NO_END
                    held = 0;
#endif
                    look();
                    if :: here == tail -> break :: else fi
#if defined(NO_CLOCK)
                :: running == 0 && (tail == head || (held != 0 && !by_cork)) -> break
#elif !defined(DIES)
                :: running == 0 && tail == head -> break
#endif
                fi
            fi
        fi
    od;
#ifdef DIES
    assert(tail == head)
#endif
}
#endif

init {
    atomic {
        if :: corked = true :: corked = false fi;
        running = 1;
        run sender();
#ifdef UNREAD
        run judge();
#else
        run reader();
#endif
#if CORKS > 0 && !defined(EXECS)
        running++;
        run corker();
#endif
#ifdef FORKS
        running++;
        run forker();
#endif
#ifndef NO_CLOCK
        run steward();
#endif
#ifdef DIES
        run death();
#endif
    }
}
