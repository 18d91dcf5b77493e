// Handles: what a SOCKET or HANDLE is a number of. The number is a slot and the slot's generation, so a
// number that was closed does not mean what took its slot later; it fits into 31 bits, since sources keep
// sockets in int, and is a multiple of 4, since the lowest bits of event handles carry a meaning.
//
// An object lives while its handle is open, while somebody counts as a user of it, and while a call uses it.
// Calls do not count, they say in a place of their thread what they use (find(), Ref::~Ref): no atomic
// operation for each look-up. Who takes the last count away looks at the places of all threads; an object
// that stands in one is ended by the call that uses it, when it is through (handles.cpp).
#pragma once

#include <utility>

#include "winsock/barrier.h"
#include "winsock/door.h"

namespace loopfast::winsock {

enum class Kind : uint8_t { kSocket, kEvent, kPort, kThread };

class Object {
public:
    explicit Object(Kind kind) : kind_(kind) {}
    virtual ~Object() = default;
    Object(const Object&) = delete;
    Object& operator=(const Object&) = delete;

    Kind kind() const { return kind_; }
    UINT_PTR handle() const { return handle_; }
    /// The handle was closed: no call will find the object any more, those that have it go on.
    virtual void closed() {}

    void keep();      ///< one more user; the caller has or is one
    bool try_keep();  ///< the same where it may be about to end. @return false: it is
    void let_go();    ///< one fewer; the last destroys
    bool is_open() const;

private:
    friend UINT_PTR open_handle(Object* object);
    const Kind kind_;
    UINT_PTR handle_ = 0;
};

/// Where a thread says that it uses an object. Only that thread writes it.
using Place = std::atomic<Object*>;

/// The call is through with what stands in the place.
inline void end_use(Place* place);

/// A use: one that counts, or one that stands in a place of the calling thread.
template <typename Type> class Ref {
public:
    Ref() = default;
    explicit Ref(Type* object, Place* place = nullptr) : object_(object), place_(place) {}
    Ref(Ref&& other) noexcept
        : object_(std::exchange(other.object_, nullptr)), place_(std::exchange(other.place_, nullptr)) {}
    Ref& operator=(Ref&& other) noexcept {
        if (this != &other) {
            reset();
            object_ = std::exchange(other.object_, nullptr);
            place_ = std::exchange(other.place_, nullptr);
        }
        return *this;
    }
    ~Ref() { reset(); }
    void reset() {
        if (object_ == nullptr)
            return;
        if (place_ != nullptr)
            end_use(std::exchange(place_, nullptr));
        else
            object_->let_go();
        object_ = nullptr;
    }
    /// The object, counted for the caller.
    Type* release() {
        if (place_ != nullptr) {
            object_->keep();
            end_use(std::exchange(place_, nullptr));
        }
        return std::exchange(object_, nullptr);
    }
    Type* get() const { return object_; }
    Type* operator->() const { return object_; }
    Type& operator*() const { return *object_; }
    explicit operator bool() const { return object_ != nullptr; }
    static Ref to(Type* object) {
        if (object != nullptr)
            object->keep();
        return Ref(object);
    }

private:
    Type* object_ = nullptr;
    Place* place_ = nullptr;
};

/// Gives a new object its number. @return it, or 0: there is none left, and the object is destroyed.
UINT_PTR open_handle(Object* object);

// What the look-up needs of handles.cpp, where the rest is and the reasons are.
namespace handles_detail {

constexpr unsigned kSlotBits = 17;
constexpr unsigned kSlots = 1U << kSlotBits;

struct Slot {
    /// generation << 32 | closed << 31 | ending << 30 | users
    std::atomic<uint64_t> state{0};
    std::atomic<Object*> object{nullptr};
    uint32_t next = 0;  ///< while free, and while it is to be ended
};
extern Slot slots[kSlots];

/// What one thread uses. A few, since calls nest (a routine, a condition function); who needs more counts.
struct Places {
    static constexpr int kCount = 4;
    alignas(64) Place used[kCount] = {};
    std::atomic<bool> taken{true};
    Places* next = nullptr;
};
extern constinit thread_local Places* my_places;

extern std::atomic<uint32_t> ending_count;
void end_unused();

inline Slot& slot_of(UINT_PTR handle) { return slots[(handle >> 2) & (kSlots - 1)]; }
/// Whether the state is that of an open handle with this generation. (A free slot is closed; one that was
/// never used has no object.)
inline bool is_open(const Slot& slot, UINT_PTR handle) {
    // Acquire pairs with the release in open_handle: the object is this generation's.
    return slot.state.load(std::memory_order_acquire) >> 31 == handle >> (2 + kSlotBits) << 1;
}
Object* use_slowly(UINT_PTR handle, Place*& place);

}  // namespace handles_detail

/// The object behind an open handle, or nullptr: counted, or with the place where its use is said.
inline Object* use_object(UINT_PTR handle, Place*& place) {
    using namespace handles_detail;
    Places* const mine = my_places;
    if ((handle & ~UINT_PTR{0x7ffffffc}) != 0 || mine == nullptr) [[unlikely]]
        return use_slowly(handle, place);
    const Slot& slot = slot_of(handle);
    Place& first = mine->used[0];
    if (first.load(std::memory_order_relaxed) != nullptr || !is_open(slot, handle)) [[unlikely]]
        return use_slowly(handle, place);
    Object* const object = slot.object.load(std::memory_order_relaxed);
    first.store(object, std::memory_order_relaxed);
    light_fence();
    place = &first;
    if (!is_open(slot, handle) || object == nullptr) [[unlikely]] {
        end_use(place);
        return nullptr;
    }
    return object;
}

inline void end_use(Place* place) {
    place->store(nullptr, std::memory_order_release);
    light_fence();
    if (handles_detail::ending_count.load(std::memory_order_relaxed) != 0) [[unlikely]]
        handles_detail::end_unused();
}

template <typename Type> Ref<Type> find(UINT_PTR handle) {
    Place* place;
    Object* const object = use_object(handle, place);
    if (object == nullptr) [[unlikely]]
        return {};
    if (object->kind() != Type::kKind) [[unlikely]] {
        const Ref<Object> unwanted(object, place);
        return {};
    }
    return Ref<Type>(static_cast<Type*>(object), place);
}
template <typename Type> Ref<Type> find(HANDLE handle) {
    return find<Type>(reinterpret_cast<UINT_PTR>(handle));
}
/// The same, always counted: for uses that are not over when the call is, or that another thread ends.
Object* find_object(UINT_PTR handle);
/// The same while the object lives, its handle closed or not.
Object* find_living(UINT_PTR handle);
/// Closes a handle of this kind. @return false if it is none.
bool close_handle(UINT_PTR handle, Kind kind);
/// Calls `visit` with each open object of a kind.
void for_each(Kind kind, void (*visit)(Object* object, void* context), void* context);
/// The same with those whose handle is closed and that still live.
void for_each_living(Kind kind, void (*visit)(Object* object, void* context), void* context);

}  // namespace loopfast::winsock
