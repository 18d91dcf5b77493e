/* Calling threads out of the kernel's set: wait/epoll_call_out.cpp.
 *
 * THREADS threads wait in one epoll set, for one job each. They sleep in the program's own set E until a stream
 * appears in it; then its events are told in the hidden set H alone, so all of them have to come over. The jobs
 * are a stream's bytes, told by a bell in H, but for one: an ordinary descriptor, ready in E until it is taken.
 *
 * What is checked: every thread gets its job. A thread that sleeps in E while the only jobs left are those of
 * streams, or in H while one lies in E of which H tells no more, is a state without a next step.
 *
 *   UNCOUNTED            the threads were there before account was kept: nobody knows how many, and the call ends
 *                        by the clock, which is slower than anybody who is on his way
 *   AGAIN                the stream goes in the meantime, and another comes
 *   BREAK_PASS_ON        the call is one event, which each that comes out passes on
 *   BREAK_NO_LOOK        (UNCOUNTED) who sleeps in H again does not look at E before, while H tells of it
 *                        edge-triggered
 *   BREAK_LEFT           the call ends when the first one has come out
 */
#ifndef THREADS
#define THREADS 3
#endif

bool lock_held
bool managed        /* E has streams: their events are told in H */
bool calling        /* a call out is under way: E is ready, level-triggered */
bool called_once    /* BREAK_PASS_ON: the event lies in E */
bool uncounted      /* there may be threads in E that were not counted */
bool ordinary       /* the ordinary descriptor is ready */
bool edge           /* H tells once that E has something new */
byte bytes          /* jobs of streams */
byte bell           /* bells in H */
byte in_kernel      /* counted threads in E */
byte asleep_in_kernel, asleep_in_hidden, done

#define LOCK() atomic { !lock_held -> lock_held = true }
#define UNLOCK() lock_held = false

inline call_out() {
    if
    :: in_kernel > 0 || uncounted ->
#ifdef BREAK_PASS_ON
        called_once = true;
#else
        calling = true;
#endif
        edge = true
    :: else
    fi
}

proctype Thread() {
    bool got = false, account = true;
#ifdef UNCOUNTED
    account = false;
#endif
in_the_kernel:
    /* Asleep in E, where an event wakes whoever sleeps there. */
    if
    :: account ->
        LOCK();
        if
        :: managed -> UNLOCK(); goto over
        :: else
        fi;
        calling = false;  /* stay_in_kernel() */
        in_kernel++;
        UNLOCK()
    :: else
    fi;
    asleep_in_kernel++;
    atomic {
        (calling || called_once || ordinary) -> asleep_in_kernel--;
        if
        :: ordinary -> ordinary = false; got = true
        :: else -> called_once = false
        fi
    };
    LOCK();
    if
    :: account ->
        in_kernel--;
#ifdef BREAK_LEFT
        calling = false;
#else
        calling = calling && (in_kernel > 0 || uncounted);
#endif
    :: else -> account = true
    fi;
#ifdef BREAK_PASS_ON
    if
    :: in_kernel > 0 || uncounted -> called_once = true; edge = true
    :: else
    fi;
#endif
    UNLOCK();
    if
    :: got -> goto out
    :: else -> goto in_the_kernel
    fi;

over:
    LOCK();
    do
    :: !managed -> UNLOCK(); goto in_the_kernel
    :: managed && bytes > 0 -> bytes--; got = true; break
    :: managed && bytes == 0 ->
        /* The look at E: what lies there is taken, whatever it is. */
        if
        :: ordinary -> ordinary = false; got = true; break
        :: else
        fi;
        if
#ifdef BREAK_PASS_ON
        :: called_once -> called_once = false
#endif
        :: else
        fi;
sleep:
        UNLOCK();
        asleep_in_hidden++;
        atomic {
            (bell > 0 || edge || (!calling && ordinary)) -> asleep_in_hidden--;
            if
            :: bell > 0 -> bell--
            :: else -> edge = false
            fi
        };
        LOCK();
#ifdef BREAK_NO_LOOK
        if
        :: calling && bytes == 0 -> goto sleep
        :: else
        fi
#endif
    od;
    if
    :: asleep_in_hidden > 0 -> bell++  /* pass_on() */
    :: else
    fi;
    UNLOCK();
out:
    done++
}

active proctype Program() {
    byte left = THREADS - 1;
    atomic {
#ifdef UNCOUNTED
        uncounted = true;
#endif
        run Thread(); run Thread();
#if THREADS > 2
        run Thread()
#endif
    };
#ifdef AGAIN
    LOCK(); managed = true; call_out(); UNLOCK();
    LOCK(); managed = false; bell++; UNLOCK();  /* the stream is closed: drop() kicks */
#endif
    LOCK(); managed = true; call_out(); UNLOCK();
    do
    :: left > 0 -> LOCK(); bytes++; bell++; left--; UNLOCK()
    :: else -> break
    od;
    done == THREADS
}

/* At some time, with no order to anything else. */
active proctype Ordinary() {
    atomic { ordinary = true; edge = true }
}
