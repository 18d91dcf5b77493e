// See handles.h. A slot's state is one word: generation, whether the handle is closed, how many count as
// users of the object. Slots are static and never given back, so a stale number can always be looked up; free
// ones are used again in the order in which they became free, so that a generation lasts long.
//
// A call that uses an object, and the end of the object, meet as Dekker had it, twice:
//
//     the call                                   the end
//     says in a place what it uses               the handle is marked as closed; the last count goes
//     light fence                                heavy fence
//     looks whether the handle is open           looks at all places
//
//     clears the place                           the object is put on the list of those to end
//     light fence                                heavy fence
//     looks whether the list is empty            looks at all places
//
// So a call either finds the handle closed or is found in its place, and then it either was found gone, or
// finds the object on the list and ends it itself. Nobody ever waits for anybody.
#include "winsock/handles.h"

#include <pthread.h>

namespace loopfast::winsock {

namespace handles_detail {

Slot slots[kSlots];
constinit thread_local Places* my_places = nullptr;
std::atomic<uint32_t> ending_count{0};  // changed under the lock

}  // namespace handles_detail
using namespace handles_detail;

namespace {

constexpr unsigned kGenerations = 1U << 11;
constexpr uint64_t kClosed = uint64_t{1} << 31;
constexpr uint64_t kEnding = kClosed >> 1;  ///< on the list of those to end
constexpr uint64_t kUsers = kEnding - 1;

Lock allocating;
uint32_t fresh = 1;  ///< slots from here on were never used; slot 0 never is
uint32_t first_free = 0;
uint32_t last_free = 0;

unsigned number_of(UINT_PTR handle) { return static_cast<unsigned>(handle >> 2) & (kSlots - 1); }
uint64_t generation_of(UINT_PTR handle) { return handle >> (2 + kSlotBits); }

void free_slot(unsigned number) {
    Hold hold(allocating);
    slots[number].next = 0;
    if (last_free != 0)
        slots[last_free].next = number;
    else
        first_free = number;
    last_free = number;
}

std::atomic<Places*> all_places{nullptr};  ///< grows only

/// The thread ends. What still stands in its places is of calls that it never returned from.
void give_back_places(void* pointer) {
    auto* const places = static_cast<Places*>(pointer);
    my_places = nullptr;
    for (Place& place : places->used)
        if (place.load(std::memory_order_relaxed) != nullptr)
            end_use(&place);
    places->taken.store(false, std::memory_order_release);
}

pthread_key_t places_key;
pthread_once_t places_key_made = PTHREAD_ONCE_INIT;

Places* keep_places(Places* places) {
    pthread_once(&places_key_made, [] { pthread_key_create(&places_key, give_back_places); });
    pthread_setspecific(places_key, places);
    return my_places = places;
}

Places* take_places() {
    // Acquire pairs with the releases below and in give_back_places().
    for (Places* places = all_places.load(std::memory_order_acquire); places != nullptr;
         places = places->next)
        if (!places->taken.load(std::memory_order_relaxed) &&
            !places->taken.exchange(true, std::memory_order_acquire))
            return keep_places(places);
    auto* const places = new Places;
    Places* first = all_places.load(std::memory_order_relaxed);
    do
        places->next = first;
    while (!all_places.compare_exchange_weak(first, places, std::memory_order_release));
    return keep_places(places);
}

bool in_a_place(const Object* object) {
    for (const Places* places = all_places.load(std::memory_order_acquire); places != nullptr;
         places = places->next)
        for (const Place& place : places->used)
            // Acquire pairs with the release in end_use: what that call did happens before the end.
            if (place.load(std::memory_order_acquire) == object)
                return true;
    return false;
}

Lock ending;
uint32_t first_ending = 0;  ///< slots, linked by next
}  // namespace

namespace handles_detail {

/// Ends those objects on the list that no call uses any more.
void end_unused() {
    uint32_t unused = 0;
    {
        Hold hold(ending);
        for (uint32_t* number = &first_ending; *number != 0;) {
            Slot& slot = slots[*number];
            // The places first: a call may have counted itself before it left its place.
            if (in_a_place(slot.object.load(std::memory_order_relaxed)) ||
                (slot.state.load(std::memory_order_acquire) & kUsers) != 0) {
                number = &slot.next;
                continue;
            }
            const uint32_t this_one = *number;
            *number = slot.next;
            slot.next = unused;
            unused = this_one;
            ending_count.fetch_sub(1, std::memory_order_relaxed);
        }
    }
    while (unused != 0) {
        const uint32_t number = unused;
        Slot& slot = slots[number];
        unused = slot.next;
        const uint64_t generation = ((slot.state.load(std::memory_order_relaxed) >> 32) + 1) % kGenerations;
        delete slot.object.exchange(nullptr, std::memory_order_relaxed);
        slot.state.store(generation << 32 | kClosed, std::memory_order_release);
        free_slot(number);
    }
}

}  // namespace handles_detail

UINT_PTR open_handle(Object* object) {
    unsigned number;
    {
        Hold hold(allocating);
        if (first_free != 0) {
            number = first_free;
            first_free = slots[number].next;
            if (first_free == 0)
                last_free = 0;
        } else if (fresh < kSlots) {
            number = fresh++;
        } else {
            number = 0;
        }
    }
    if (number == 0) {
        delete object;
        return 0;
    }
    Slot& slot = slots[number];
    const uint64_t generation = slot.state.load(std::memory_order_relaxed) >> 32;
    object->handle_ = (generation << (2 + kSlotBits)) | (static_cast<UINT_PTR>(number) << 2);
    slot.object.store(object, std::memory_order_relaxed);
    // Release pairs with the acquires in use_object and find_in_state.
    slot.state.store(generation << 32 | 1, std::memory_order_release);
    return object->handle_;
}

namespace {

/// An object without a count is on the list of those to end, once.
void last_count_went(unsigned number) {
    Slot& slot = slots[number];
    {
        Hold hold(ending);
        // A call that used the object without a count may have counted itself meanwhile, and be through.
        const uint64_t state = slot.state.load(std::memory_order_relaxed);
        if ((state & kUsers) == 0 && (state & (kClosed | kEnding)) == kClosed) {
            slot.state.fetch_or(kEnding, std::memory_order_relaxed);
            slot.next = first_ending;
            first_ending = number;
            ending_count.fetch_add(1, std::memory_order_seq_cst);
        }
    }
    heavy_fence();
    end_unused();
}

Object* find_in_state(UINT_PTR handle, uint64_t refused) {
    if ((handle & ~UINT_PTR{0x7ffffffc}) != 0)
        return nullptr;
    Slot& slot = slot_of(handle);
    uint64_t state = slot.state.load(std::memory_order_relaxed);
    do {
        if (state >> 32 != generation_of(handle) || (state & refused) != 0 || (state & kUsers) == 0)
            return nullptr;
    } while (!slot.state.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
    return slot.object.load(std::memory_order_relaxed);
}

}  // namespace

Object* handles_detail::use_slowly(UINT_PTR handle, Place*& place) {
    place = nullptr;
    if ((handle & ~UINT_PTR{0x7ffffffc}) != 0 || !is_open(slot_of(handle), handle))
        return nullptr;
    const Slot& slot = slot_of(handle);
    Places* const mine = my_places != nullptr ? my_places : take_places();
    for (Place& free : mine->used) {
        if (free.load(std::memory_order_relaxed) != nullptr)
            continue;
        Object* const object = slot.object.load(std::memory_order_relaxed);
        free.store(object, std::memory_order_relaxed);
        light_fence();
        if (!is_open(slot, handle) || object == nullptr) {
            end_use(&free);
            return nullptr;
        }
        place = &free;
        return object;
    }
    return find_object(handle);
}

Object* find_object(UINT_PTR handle) { return find_in_state(handle, kClosed); }
Object* find_living(UINT_PTR handle) { return find_in_state(handle, 0); }

void Object::keep() { slot_of(handle_).state.fetch_add(1, std::memory_order_relaxed); }

bool Object::try_keep() {
    std::atomic<uint64_t>& word = slot_of(handle_).state;
    uint64_t state = word.load(std::memory_order_relaxed);
    do {
        if ((state & kUsers) == 0)
            return false;
    } while (!word.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
    return true;
}

void Object::let_go() {
    const unsigned number = number_of(handle_);
    Slot& slot = slots[number];
    // Acquire and release: what all users did happens before the end. After this the object may be gone.
    const uint64_t before = slot.state.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & kUsers) == 1)
        last_count_went(number);
}

bool Object::is_open() const {
    return (slot_of(handle_).state.load(std::memory_order_acquire) & kClosed) == 0;
}

bool close_handle(UINT_PTR handle, Kind kind) {
    Object* const object = find_object(handle);
    if (object == nullptr)
        return false;
    bool mine = object->kind() == kind;
    if (mine) {
        // Only one of two that close at once gets to.
        const uint64_t before = slot_of(handle).state.fetch_or(kClosed, std::memory_order_acq_rel);
        mine = (before & kClosed) == 0;
        if (mine) {
            object->closed();
            object->let_go();
        }
    }
    object->let_go();
    return mine;
}

namespace {

template <typename Find>
void visit_all(Kind kind, Find find_it, void (*visit)(Object* object, void* context), void* context) {
    unsigned end;
    {
        Hold hold(allocating);
        end = fresh;
    }
    for (unsigned number = 1; number < end; ++number) {
        const uint64_t generation = slots[number].state.load(std::memory_order_relaxed) >> 32;
        Object* const object =
            find_it((generation << (2 + kSlotBits)) | (static_cast<UINT_PTR>(number) << 2));
        if (object == nullptr)
            continue;
        if (object->kind() == kind)
            visit(object, context);
        object->let_go();
    }
}

}  // namespace

void for_each(Kind kind, void (*visit)(Object* object, void* context), void* context) {
    visit_all(kind, find_object, visit, context);
}
void for_each_living(Kind kind, void (*visit)(Object* object, void* context), void* context) {
    visit_all(kind, find_living, visit, context);
}

}  // namespace loopfast::winsock
