// See clock.h.
#include "base/clock.h"

#include <elf.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>

#include "base/syscall.h"

namespace loopfast {

namespace {

int ask_kernel(clockid_t clock, timespec* time) {
    return static_cast<int>(sys::plain_call(SYS_clock_gettime, clock, sys::word(time), 0, 0, 0, 0));
}

#if defined(__x86_64__)
constexpr char kClockName[] = "__vdso_clock_gettime";
#else
constexpr char kClockName[] = "__kernel_clock_gettime";
#endif

/// The function with which libc, too, reads the clock, out of the image that the kernel maps into each
/// process; 0 if there is none. No way through the loader: dlsym finds whoever stands before libc, and dlopen
/// may be such a one's as well (heaptrack's waits for ever so early).
uintptr_t clock_of_the_kernel() {
    const uintptr_t image = getauxval(AT_SYSINFO_EHDR);
    if (image == 0)
        return 0;
    const auto* const header = reinterpret_cast<const ElfW(Ehdr)*>(image);
    const auto* const segments = reinterpret_cast<const ElfW(Phdr)*>(image + header->e_phoff);
    const ElfW(Dyn)* entry = nullptr;
    uintptr_t bias = image;
    for (int i = 0; i < header->e_phnum; ++i) {
        if (segments[i].p_type == PT_LOAD)
            bias = image + segments[i].p_offset - segments[i].p_vaddr;
        else if (segments[i].p_type == PT_DYNAMIC)
            entry = reinterpret_cast<const ElfW(Dyn)*>(image + segments[i].p_offset);
    }
    uintptr_t symbols = 0;
    uintptr_t names = 0;
    for (; entry != nullptr && entry->d_tag != DT_NULL; ++entry) {
        if (entry->d_tag == DT_SYMTAB)
            symbols = bias + entry->d_un.d_ptr;
        else if (entry->d_tag == DT_STRTAB)
            names = bias + entry->d_un.d_ptr;
    }
    if (symbols == 0)
        return 0;
    // The names begin where the symbols end, as linkers lay them out.
    for (const auto* symbol = reinterpret_cast<const ElfW(Sym)*>(symbols);
         reinterpret_cast<uintptr_t>(symbol + 1) <= names; ++symbol)
        if (symbol->st_shndx != SHN_UNDEF &&
            strcmp(reinterpret_cast<const char*>(names + symbol->st_name), kClockName) == 0)
            return bias + symbol->st_value;
    return 0;
}

}  // namespace

int (*read_clock)(clockid_t clock, timespec* time) = &ask_kernel;

void find_clock() {
    if (const uintptr_t found = clock_of_the_kernel(); found != 0)
        read_clock = reinterpret_cast<decltype(read_clock)>(found);
}

}  // namespace loopfast
