/* The proof of possession: each end of a connection shows the other that it owns the other end of this very
   connection, though somebody in between answers, relays and closes whatever it likes.

   Corresponds to src/stream/proof.cpp, src/link/possession.h and the parts of fuse.cpp that call them.

   Modelled     the connector, the acceptor, and an impostor of the same user in the same network namespace, who
                may take either name whenever it is free, connect to the offer under the answer's name or without
                it, let go of all that at any moment, and say anything on its links at any time (a word from it
                is always there to be read). The kernel: a name is held by one socket at a time; a socket that is
                closed loses its name first, and its peer hears of the hang-up a step later; a sign can be changed
                by the owner alone and be seen by all. Both ends may give up at any step and begin anew, ROUNDS
                times. A socket's sign is one bit; a killed end leaves its sign as it is.
   Left out     uids and namespaces, which only keep more people out; the content of messages, since nothing in
                them is secret; the hand-over itself (handover.pml).
   Proved       the acceptor proposes to nobody but the connector, the connector confirms to nobody but the
                acceptor (assertions). With ALONE, without an impostor: both ends, once they met, come to their
                goal if neither gives up.

   Broken on purpose, each must be refused:
     BREAK_ANY_NAME        the connector takes a link from any name
     BREAK_NAME_AFTER      the acceptor takes its name after it has connected
     BREAK_LOOK_BEFORE     the acceptor's first look comes before it has connected
     BREAK_NO_FIRST_LOOK   the acceptor asks whether the sign is there, not whether it came
     BREAK_SIGN_OUTLIVES   the connector takes its sign back after it has let go of its name
     BREAK_LOOKS_LATE      the connector's first look comes after its sign (refused with ALONE: they miss each other) */

#ifndef ROUNDS
#define ROUNDS 2
#endif

#define NOBODY 0
#define CONNECTOR 1
#define ACCEPTOR 2
#define IMPOSTOR 3

byte offer_name = NOBODY;  /* who holds it */
byte answer_name = NOBODY;
#ifdef BREAK_NO_FIRST_LOOK
bool sign_c = true; /* the program has used the switches itself */
#else
bool sign_c;
#endif
bool sign_a;

/* The acceptor's link: to whom, and in which of the connector's offers. */
byte peer_of_a = NOBODY;
byte offers; /* counts the connector's */
byte joined; /* the acceptor's link belongs to this one */
/* The connector's link. */
byte peer_of_c = NOBODY;
/* The impostor's link to the connector's offer: there, and from the answer's name. */
bool i_link, i_named;
byte i_joined;

/* What lies on the link between the two true ends. */
bool hello, answered, proposal, confirmed;
bool c_done, a_done;

#define A_ON_OFFER (peer_of_a == CONNECTOR && joined == offers && offer_name == CONNECTOR)
#define I_ON_OFFER (i_link && i_joined == offers && offer_name == CONNECTOR)

#ifdef ALONE
#define MAY_GIVE_UP false
#else
#define MAY_GIVE_UP true
#endif

active proctype connector() {
    bool first, base;
    byte round;
    bool shown;
begin:
    do
    :: round == ROUNDS || c_done -> break
    :: round < ROUNDS && !c_done ->
        round++;
        atomic {
            if
            :: offer_name == NOBODY -> offer_name = CONNECTOR; offers++
            :: else -> goto finished /* somebody holds the name: for good */
            fi
        }
accepting:
        skip;
        if
        :: atomic { A_ON_OFFER && peer_of_c == NOBODY ->
#ifndef BREAK_ANY_NAME
            if :: answer_name == ACCEPTOR -> peer_of_c = ACCEPTOR :: else -> goto give_up fi
#else
            peer_of_c = ACCEPTOR
#endif
           }
        :: atomic { I_ON_OFFER ->
#ifndef BREAK_ANY_NAME
            if :: i_named -> peer_of_c = IMPOSTOR :: else -> i_link = false; goto accepting fi
#else
            peer_of_c = IMPOSTOR
#endif
           }
        :: MAY_GIVE_UP -> goto give_up
        fi;
        if
        :: peer_of_c == ACCEPTOR && hello -> skip
        :: peer_of_c == IMPOSTOR -> skip
        :: MAY_GIVE_UP -> goto give_up
        fi;
#ifndef BREAK_LOOKS_LATE
        first = sign_a;
#endif
        sign_c = !sign_c;
        shown = true;
        if :: peer_of_c == ACCEPTOR && A_ON_OFFER -> answered = true :: else fi;
#ifdef BREAK_LOOKS_LATE
        if :: proposal || peer_of_c == IMPOSTOR :: MAY_GIVE_UP fi;
        first = sign_a;
#endif
        if
        :: peer_of_c == ACCEPTOR && proposal -> skip
        :: peer_of_c == IMPOSTOR -> skip
        :: MAY_GIVE_UP -> goto give_up
        fi;
        if
        :: sign_a != first -> skip
        :: else -> goto give_up
        fi;
        if
        :: peer_of_c == IMPOSTOR && !i_link -> goto give_up /* hung up */
        :: else
        fi;
        assert(peer_of_c == ACCEPTOR);
        d_step { confirmed = true; c_done = true };
give_up:
#ifndef BREAK_SIGN_OUTLIVES
        if :: shown -> sign_c = !sign_c; shown = false :: else fi;
#endif
        atomic { offer_name = NOBODY; peer_of_c = NOBODY; answered = false };
#ifdef BREAK_SIGN_OUTLIVES
        if :: shown -> sign_c = !sign_c; shown = false :: else fi;
#endif
    od;
finished:
    skip
}

active proctype acceptor() {
    bool first;
    byte round;
    do
    :: round == ROUNDS || a_done -> break
    :: round < ROUNDS && !a_done ->
#ifdef ALONE
        offer_name == CONNECTOR; /* else the look is in vain */
#endif
        round++;
#ifndef BREAK_NAME_AFTER
        atomic { if :: answer_name == NOBODY -> answer_name = ACCEPTOR :: else -> goto finished fi }
#endif
#ifdef BREAK_LOOK_BEFORE
        first = sign_c;
#endif
        atomic {
            if
            :: offer_name == CONNECTOR -> peer_of_a = CONNECTOR; joined = offers; hello = false; proposal = false
            :: offer_name == IMPOSTOR -> peer_of_a = IMPOSTOR
            :: else -> goto let_go
            fi
        }
#ifdef BREAK_NAME_AFTER
        atomic { if :: answer_name == NOBODY -> answer_name = ACCEPTOR :: else -> goto let_go fi }
#endif
#if defined(BREAK_NO_FIRST_LOOK)
        first = false;
#elif !defined(BREAK_LOOK_BEFORE)
        first = sign_c;
#endif
        if :: A_ON_OFFER -> hello = true :: else fi;
        if
        :: peer_of_a == CONNECTOR && answered -> skip
        :: peer_of_a == CONNECTOR && !A_ON_OFFER -> goto let_go
        :: peer_of_a == IMPOSTOR -> skip
        :: MAY_GIVE_UP -> goto let_go
        fi;
        if
        :: sign_c != first -> skip
        :: else -> goto let_go
        fi;
        if
        :: peer_of_a == CONNECTOR && !A_ON_OFFER -> goto let_go /* hung up */
        :: else
        fi;
        assert(peer_of_a == CONNECTOR);
        sign_a = !sign_a;
        proposal = true;
        if
        :: confirmed -> a_done = true
        :: !confirmed && !A_ON_OFFER
        :: MAY_GIVE_UP
        fi;
        sign_a = !sign_a;
let_go:
        skip;
        d_step { hello = false; proposal = false; peer_of_a = NOBODY;
                 if :: answer_name == ACCEPTOR -> answer_name = NOBODY :: else fi }
    od;
finished:
#ifdef ALONE
    assert(a_done && c_done)
#else
    skip
#endif
}

#ifndef ALONE
active proctype impostor() {
    bool bound;
end_impostor:
    do
    :: atomic { offer_name == NOBODY -> offer_name = IMPOSTOR }
    :: atomic { offer_name == IMPOSTOR -> offer_name = NOBODY }
    :: atomic { answer_name == NOBODY && !i_link -> answer_name = IMPOSTOR }
    :: atomic { answer_name == IMPOSTOR && !i_link -> answer_name = NOBODY }
    :: atomic { offer_name == CONNECTOR && !i_link ->
                i_link = true; i_joined = offers; i_named = (answer_name == IMPOSTOR) }
    :: atomic { i_link && answer_name == IMPOSTOR -> answer_name = NOBODY }; /* it closes: the name goes first, */
       i_link = false                                                        /* then the peer hears of it */
    :: atomic { i_link && answer_name != IMPOSTOR -> i_link = false }
    od
}
#endif
