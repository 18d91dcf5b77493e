// See handles.h. A slot's state is one word: generation, whether the handle is closed, how many use the
// object. Slots are static and never given back, so a stale number can always be looked up; free ones are
// used again in the order in which they became free, so that a generation lasts long.
#include "winsock/handles.h"

namespace loopfast::winsock {

namespace {

constexpr unsigned kSlotBits = 17;
constexpr unsigned kSlots = 1U << kSlotBits;
constexpr unsigned kGenerations = 1U << 11;
constexpr uint64_t kClosed = uint64_t{1} << 31;
constexpr uint64_t kUsers = kClosed - 1;

struct Slot {
    std::atomic<uint64_t> state{0};  ///< generation << 32 | closed | users
    Object* object = nullptr;        ///< valid while there are users
    uint32_t next = 0;               ///< while free
};
Slot slots[kSlots];
Lock allocating;
uint32_t fresh = 1;  ///< slots from here on were never used; slot 0 never is
uint32_t first_free = 0;
uint32_t last_free = 0;

unsigned slot_of(UINT_PTR handle) { return static_cast<unsigned>(handle >> 2) & (kSlots - 1); }
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

}  // namespace

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
    slot.object = object;
    // Release pairs with the acquire in find_object.
    slot.state.store(generation << 32 | 1, std::memory_order_release);
    return object->handle_;
}

namespace {

Object* find_in_state(UINT_PTR handle, uint64_t refused) {
    if ((handle & 3) != 0 || handle >> 31 != 0)
        return nullptr;
    Slot& slot = slots[slot_of(handle)];
    uint64_t state = slot.state.load(std::memory_order_relaxed);
    do {
        if (state >> 32 != generation_of(handle) || (state & refused) != 0 || (state & kUsers) == 0)
            return nullptr;
    } while (!slot.state.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
    return slot.object;
}

}  // namespace

Object* find_object(UINT_PTR handle) { return find_in_state(handle, kClosed); }
Object* find_living(UINT_PTR handle) { return find_in_state(handle, 0); }

void Object::keep() { slots[slot_of(handle_)].state.fetch_add(1, std::memory_order_relaxed); }

bool Object::try_keep() {
    std::atomic<uint64_t>& word = slots[slot_of(handle_)].state;
    uint64_t state = word.load(std::memory_order_relaxed);
    do {
        if ((state & kUsers) == 0)
            return false;
    } while (!word.compare_exchange_weak(state, state + 1, std::memory_order_acquire));
    return true;
}

void Object::let_go() {
    const unsigned number = slot_of(handle_);
    Slot& slot = slots[number];
    // Acquire and release: what all users did happens before the end.
    const uint64_t before = slot.state.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & kUsers) != 1)
        return;
    const uint64_t generation = ((before >> 32) + 1) % kGenerations;
    delete this;
    slot.object = nullptr;
    slot.state.store(generation << 32, std::memory_order_release);
    free_slot(number);
}

bool Object::is_open() const {
    return (slots[slot_of(handle_)].state.load(std::memory_order_acquire) & kClosed) == 0;
}

bool close_handle(UINT_PTR handle, Kind kind) {
    Object* const object = find_object(handle);
    if (object == nullptr)
        return false;
    bool mine = object->kind() == kind;
    if (mine) {
        // Only one of two that close at once gets to.
        const uint64_t before = slots[slot_of(handle)].state.fetch_or(kClosed, std::memory_order_acq_rel);
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
