// What `loopfast run` says of a program before it starts it: where it is, and whether preloading can work.
#include "cli/program.h"

#include <elf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "cli/failure.h"

namespace loopfast::cli {
namespace {

class Programs : public testing::Test {
protected:
    void SetUp() override { ASSERT_NE(mkdtemp(directory_), nullptr); }
    void TearDown() override { std::filesystem::remove_all(directory_); }

    std::string write(const std::string& name, const std::string& content, mode_t mode = 0755) {
        std::string path = std::string(directory_) + "/" + name;
        std::ofstream(path, std::ios::binary) << content;
        chmod(path.c_str(), mode);
        return path;
    }

    /// The first bytes of an ELF program with one program header.
    static std::string elf(unsigned char size, uint16_t machine, uint32_t segment) {
        Elf64_Ehdr header{};
        memcpy(header.e_ident, ELFMAG, SELFMAG);
        header.e_ident[EI_CLASS] = size;
        header.e_machine = machine;
        header.e_phoff = sizeof header;
        header.e_phentsize = sizeof(Elf64_Phdr);
        header.e_phnum = 1;
        Elf64_Phdr one{};
        one.p_type = segment;
        return std::string(reinterpret_cast<char*>(&header), sizeof header) +
               std::string(reinterpret_cast<char*>(&one), sizeof one);
    }

    static Status refusal(const std::string& name) {
        try {
            find_program(name);
        } catch (const Failure& failure) {
            return failure.status();
        }
        return Status{};
    }

    char directory_[64] = "/tmp/loopfast-program-XXXXXX";
};

#if defined(__x86_64__)
constexpr uint16_t kHere = EM_X86_64, kElsewhere = EM_AARCH64;
#else
constexpr uint16_t kHere = EM_AARCH64, kElsewhere = EM_X86_64;
#endif

TEST_F(Programs, AreFoundAsAShellFindsThem) {
    const std::string path = write("program", "");
    write("not-executable", "", 0644);
    setenv("PATH", directory_, 1);
    EXPECT_EQ(find_program("program"), path);
    EXPECT_EQ(find_program(path), path);
    EXPECT_EQ(refusal("no-such-program"), kNotFound);
    EXPECT_EQ(refusal("/no/such/program"), kNotFound);
    EXPECT_EQ(refusal("not-executable"), kCannotExecute);
    EXPECT_EQ(refusal(directory_), kCannotExecute);
}

TEST_F(Programs, DynamicOnesAreFine) {
    EXPECT_EQ(why_not_preloadable(write("dynamic", elf(ELFCLASS64, kHere, PT_INTERP))), "");
    EXPECT_EQ(why_not_preloadable("/bin/sh"), "");
}

TEST_F(Programs, StaticOtherWidthAndOtherMachine) {
    EXPECT_NE(why_not_preloadable(write("static", elf(ELFCLASS64, kHere, PT_LOAD))).find("statically"),
              std::string::npos);
    EXPECT_NE(why_not_preloadable(write("narrow", elf(ELFCLASS32, EM_386, PT_INTERP))).find("32-bit"),
              std::string::npos);
    EXPECT_NE(
        why_not_preloadable(write("foreign", elf(ELFCLASS64, kElsewhere, PT_INTERP))).find("architecture"),
        std::string::npos);
}

TEST_F(Programs, OfAnotherLibc) {
    // Where the name of its loader lies in such a file.
    const auto with_loader = [](const std::string& loader) {
        std::string content = elf(ELFCLASS64, kHere, PT_INTERP);
        Elf64_Phdr one{};
        one.p_type = PT_INTERP;
        one.p_offset = content.size();
        one.p_filesz = loader.size() + 1;
        memcpy(content.data() + sizeof(Elf64_Ehdr), &one, sizeof one);
        return content + loader + '\0';
    };
    const std::string other = write("ld-musl-x86_64.so.1", "a loader of its own");
    const std::string ours = write("loader-of-a-store", "... GLIBC_2.2.5 GLIBC_PRIVATE ...");
    const std::string reason = why_not_preloadable(write("other", with_loader(other)));
    EXPECT_NE(reason.find("glibc"), std::string::npos) << reason;
    EXPECT_NE(reason.find(other), std::string::npos) << reason;
    EXPECT_EQ(why_not_preloadable(write("ours", with_loader(ours))), "");
    EXPECT_EQ(why_not_preloadable(write("orphan", with_loader("/no/such/loader"))), "");
    EXPECT_EQ(why_not_preloadable(write("empty", with_loader(""))), "");
}

TEST_F(Programs, AScriptIsJudgedByItsInterpreter) {
    const std::string interpreter = write("static", elf(ELFCLASS64, kHere, PT_LOAD));
    EXPECT_NE(why_not_preloadable(write("script", "#! " + interpreter + " -x\n")), "");
    EXPECT_EQ(why_not_preloadable(write("shell", "#!/bin/sh\necho\n")), "");
    EXPECT_EQ(why_not_preloadable(write("loop", "#!" + std::string(directory_) + "/loop\n")), "");
}

TEST_F(Programs, TheLibrariesTheyNeed) {
    EXPECT_TRUE(needs_library("/proc/self/exe", "libc.so"));
    EXPECT_TRUE(needs_library("/proc/self/exe", "libstdc++.so.6"));
    EXPECT_FALSE(needs_library("/proc/self/exe", "libc.so.77"));
    EXPECT_FALSE(needs_library(write("script", "#!/bin/sh\n"), "libc.so"));
    EXPECT_FALSE(needs_library(write("short", elf(ELFCLASS64, kHere, PT_DYNAMIC)), "libc.so"));
    EXPECT_FALSE(needs_library("/nowhere", "libc.so"));
}

TEST_F(Programs, WhatCannotBeReadGetsTheBenefitOfTheDoubt) {
    EXPECT_EQ(why_not_preloadable(write("text", "echo\n")), "");
    EXPECT_EQ(why_not_preloadable(write("empty", "")), "");
    EXPECT_EQ(why_not_preloadable("/no/such/file"), "");
}

TEST_F(Programs, SetuidOfAnotherUser) {
    const std::string path = write("setuid", elf(ELFCLASS64, kHere, PT_INTERP));
    chmod(path.c_str(), 04755);
    EXPECT_EQ(why_not_preloadable(path), "") << "one's own user changes nothing";
    if (geteuid() != 0)
        GTEST_SKIP() << "only root can give a file away";
    ASSERT_EQ(chown(path.c_str(), 12345, static_cast<gid_t>(-1)), 0);
    chmod(path.c_str(), 04755);
    EXPECT_NE(why_not_preloadable(path).find("setuid"), std::string::npos);
}

TEST_F(Programs, TheLibraryCanBeNamed) {
    const std::string path = write("libother.so", std::string("\0...loopfast_reason_name", 24));
    setenv("LOOPFAST_LIBRARY", path.c_str(), 1);
    EXPECT_EQ(find_library(), path);
    setenv("LOOPFAST_LIBRARY", write("libm.so.6", "another library").c_str(), 1);
    EXPECT_THROW(find_library(), Failure);
    setenv("LOOPFAST_LIBRARY", "/no/such/library.so", 1);
    EXPECT_THROW(find_library(), Failure);
    unsetenv("LOOPFAST_LIBRARY");
}

}  // namespace
}  // namespace loopfast::cli
