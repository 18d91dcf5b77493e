/* Bytes that are held back: MSG_MORE and TCP_CORK. Whatever the order of steps, they are shown in the end.

   Corresponds to src/stream/held.cpp, the end of send_some (src/stream/send.cpp), option_set
   (src/posix/sockets.cpp), before_fork (src/table/table.cpp), mind, mind_held and mind_no_more
   (src/wait/steward.cpp), seen_up_to (src/segment/ring.h) and show_end.

   Modelled     one sender that sends SENDS bytes, each with or without MSG_MORE, on a socket that begins corked
                or not; a thread that takes the cork away (CORKS 1) and corks again (2); the steward, asleep for good
                or for a while; a fork; an exec by another thread, which ends all others;
                the reader, which arms its word, looks again and sleeps; the sender's end.
   The clock    passes when nothing else can move, and may pass before.
   Shapes       (default)  the clock passes
                NO_CLOCK   it never does: what a cork held is shown by who takes the cork away
                FORKS      (UNREAD) the process forks, at any moment, and is killed at any moment after that: its relative
                           keeps the connection, and knows of nothing
                EXECS      (UNREAD) another thread executes a program at any moment
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
     BREAK_LIST        (EXECS) before an exec only what is on the list is shown
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
bool lost;                    /* killed, or another program: nobody goes on, and there is no end */
byte running;                 /* who may still change something */

#define DEAD (ended || lost)

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
    if
    :: lost -> was = 0  /* in the middle of it */
    :: atomic { !lost -> was = held; held = 0 }
    fi;
#endif
    if :: was != 0 -> wake() :: else fi;
    was = 0
}

inline show_held() {
    if :: held != 0 -> show_held_now() :: else fi
}

/* remember() and mind(); `kept` says whether somebody will look at the clock. */
inline remember() {
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
    od;
    running--
}

#if CORKS > 0
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
    if :: lost = true :: true fi;
    running--
}
#endif

#ifdef EXECS
/* mind_no_more(), then the exec. */
proctype executor() {
    byte was;
    minds = false;
    minding = false;
#ifdef BREAK_LIST
    if :: entry -> show_held_now() :: else fi;
#else
    show_held();
#endif
    lost = true;
    running--
}
#endif

#ifndef NO_CLOCK
proctype steward() {
    byte was;
    bool due;
    do
    :: DEAD -> break
    :: else ->
        /* Asleep for good, or for a while. */
end_asleep:
        if
        :: atomic { called -> called = false; due = false }
        :: atomic { minding && since -> due = true }    /* time passes while others could move */
        :: atomic { minding && timeout -> due = true }
        :: DEAD -> break
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
    /* A killed process's counts stay as they were. */
#ifdef NO_CLOCK
    running == 0 && (held == 0 || !by_cork)
#else
    (running == 0 || lost) && (held == 0 || held > head)
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
#if CORKS > 0
        running++;
        run corker();
#endif
#ifdef FORKS
        running++;
        run forker();
#endif
#ifdef EXECS
        running++;
        run executor();
#endif
#ifndef NO_CLOCK
        run steward();
#endif
#ifdef DIES
        run death();
#endif
    }
}
