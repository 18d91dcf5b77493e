// The command `loopfast`: its command line and how it ends. Each subcommand has a file of its own.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "cli/completion.h"
#include "cli/config.h"
#include "cli/demo.h"
#include "cli/demo_worker.h"
#include "cli/doctor.h"
#include "cli/failure.h"
#include "cli/run.h"
#include "cli/status.h"
#include "cli/suggestion.h"
#include "guard/guard.h"
#include "version.h"

namespace loopfast::cli {

namespace {

constexpr const char* kRunFooter = R"(
The program's TCP connections to programs on this host that were started the same way go through memory
that the two share; all others stay as they are. Each option has an environment variable of its name
(LOOPFAST_SPIN, LOOPFAST_THRESHOLD, LOOPFAST_LOG, LOOPFAST_CONFIG); the option wins over the variable, and
both win over the configuration file.

Exit status: the program's; 126 if it cannot be executed, 127 if it is not found, 2 for a wrong option.)";

/// CLI11 knows nothing of what follows the options of `run`.
class RunFormatter : public CLI::Formatter {
    std::string make_usage(const CLI::App*, std::string) const override {
        return "Usage: loopfast run [OPTIONS] -- PROGRAM [ARGUMENTS...]\n";
    }
};

void add_run(CLI::App& app, RunOptions& options) {
    CLI::App* run = app.add_subcommand("run", "Start a program with loopfast in it");
    run->formatter(std::make_shared<RunFormatter>());
    run->footer(kRunFooter);
    run->add_option("--spin", options.spin,
                    "How long a wait may poll shared memory before it sleeps: off, auto or microseconds")
        ->type_name("off|auto|MICROSECONDS");
    run->add_option("--threshold", options.threshold,
                    "Bytes that a connection must have carried before it is moved over")
        ->type_name("BYTES");
    run->add_option("--log", options.log, "Where the library writes what it decides: a file, or stderr")
        ->type_name("PATH|stderr");
    run->add_option("--config", options.config,
                    "Configuration file (default: ~/.config/loopfast/loopfast.toml, /etc/loopfast.toml)")
        ->type_name("FILE");
    run->add_flag("--explain", options.explain, "Print what would be set, and start nothing");
    run->add_flag("--force", options.force, "Start the program even if loopfast cannot work in it");
}

/// What is no number at all; which ones are good is said where they are used.
std::string a_number(const std::string& text) {
    return !text.empty() && text.find_first_not_of("-0123456789") == std::string::npos
               ? ""
               : fmt::format("\"{}\" is not the number of a process", text);
}

void add_demo(CLI::App& app, DemoOptions& options) {
    CLI::App* demo = app.add_subcommand("demo", "Measure what loopfast gives on this machine");
    demo->footer("\nA server and a client process over TCP on 127.0.0.1: 64-byte ping-pong and one stream,\n"
                 "kernel lane and ring lane in turn; medians, and their ratio to the kernel lane's.");
    demo->add_option("--rounds", options.rounds, "Alternations")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    demo->add_option("--seconds", options.seconds, "How long each measurement takes")
        ->check(CLI::Range(0.01, 3600.0))
        ->check([](const std::string& text) {  // which is in every range
            return std::isnan(std::strtod(text.c_str(), nullptr))
                       ? "expected a number of seconds, got " + text
                       : "";
        })
        ->capture_default_str();
    demo->add_flag("--json", options.json, "JSON instead of a table");
}

void add_guard(CLI::App& app, guard::GuardOptions& options) {
    CLI::App* guard =
        app.add_subcommand("guard", "Watch packet filters and captures for all programs (root)");
    guard->footer(
        "\nA service that knows at any moment whether rules, captures or programs of this network namespace\n"
        "would look at loopback packets, and publishes it: connections then stay with the kernel, or go "
        "back\n"
        "to it. One runs in each network namespace; loopfast-guard.service starts the host's. It prints "
        "what\n"
        "it finds.");
    guard->add_flag("--quiet", options.quiet, "Print nothing but mistakes");
}

/// The processes that `loopfast demo` starts: not for people, so not in the help.
void add_worker(CLI::App& app, const char* name, WorkerOptions& options, std::string& lane) {
    CLI::App* worker = app.add_subcommand(name, "A process of `loopfast demo`");
    worker->group("");
    worker->add_option("--work", options.work)->check(CLI::IsMember({"pingpong", "stream"}))->required();
    worker->add_option("--cpu", options.cpu);
    worker->add_option("--port", options.port);
    worker->add_option("--seconds", options.seconds);
    worker->add_option("--lane", lane);
}

/// Where, in the words of a `run` command line, the program's own begin: after "--", or at the first word
/// that is no option of ours. CLI11 sees only what is before; what comes after is not for it to interpret.
size_t program_begin(const CLI::App& run, const std::vector<std::string>& words) {
    for (size_t i = 2; i < words.size(); ++i) {
        const std::string& word = words[i];
        if (word == "--" || word.size() < 2 || word[0] != '-')
            return i;
        const std::string name = word.substr(0, word.find('='));
        const CLI::Option* option = run.get_option_no_throw(name);
        if (option == nullptr)
            throw Failure(kUsage,
                          fmt::format("unknown option '{}'{}\nSee `loopfast run --help`.", name,
                                      did_you_mean(name, {"--spin", "--threshold", "--log", "--config",
                                                          "--explain", "--force", "--help"})));
        if (option->get_items_expected_max() > 0 && name == word)
            ++i;  // its value is the next word
    }
    return words.size();
}

/// Served by without_help_command(); this is for the list of commands.
void add_help(CLI::App& app) {
    CLI::App* help =
        app.add_subcommand("help", "Print this text, or that of one command: loopfast help COMMAND");
    help->footer("\n`loopfast help`: the commands. `loopfast help COMMAND`: its options, like\n"
                 "`loopfast COMMAND --help`.");
}

bool has_subcommand(const CLI::App& app, const std::string& name) {
    const auto all = app.get_subcommands([&](const CLI::App* one) { return one->check_name(name); });
    return !all.empty();
}

/// A mistake on the command line in words of ours: CLI11's name no value that is missing, and lead to a
/// --help that does not have the option.
std::string in_our_words(const CLI::App& app, const CLI::ParseError& error) {
    const auto named = app.get_subcommands();
    const CLI::App& where = named.empty() ? app : *named.front();
    const auto code = static_cast<CLI::ExitCodes>(error.get_exit_code());
    std::string text = error.what();
    if (code == CLI::ExitCodes::ArgumentMismatch) {
        const std::string name = text.substr(0, text.find(':'));
        if (const CLI::Option* const option = where.get_option_no_throw(name); option != nullptr)
            text = option->count() > 1 ? fmt::format("{} is given more than once", name)
                                       : fmt::format("{} needs a value: {}", name, option->get_type_name());
    } else if (code == CLI::ExitCodes::ExtrasError) {
        const size_t colon = text.find(": ");
        const std::string words = colon == std::string::npos ? text : text.substr(colon + 2);
        const std::string word = words.substr(0, words.find(' '));
        std::vector<std::string> known;
        for (const CLI::Option* const option : where.get_options())
            known.push_back(option->get_name());
        text = word[0] == '-' ? fmt::format("unknown option '{}'{}", word, did_you_mean(word, known))
                              : fmt::format("'{}' is not expected there", word);
    }
    return fmt::format("{}\nSee `loopfast {}--help`.", text, named.empty() ? "" : where.get_name() + " ");
}

/// `loopfast help`, `loopfast help COMMAND`: what one types first.
std::vector<std::string> without_help_command(std::vector<std::string> words) {
    if (words.size() > 1 && words[1] == "help") {
        words.erase(words.begin() + 1);
        words.resize(std::min<size_t>(words.size(), 2));
        words.emplace_back("--help");
    }
    return words;
}

void check_process(const std::optional<pid_t>& pid) {
    if (pid && *pid <= 0)
        throw Failure(kUsage, fmt::format("--pid is \"{}\"; expected the number of a process", *pid));
}

int main_(int argc, char** argv) {
    CLI::App app{"loopfast: TCP between programs on one host, through shared memory"};
    app.name("loopfast");
    app.set_version_flag("--version", "loopfast " LOOPFAST_VERSION);
    app.require_subcommand(1);
    app.footer("\n`loopfast COMMAND --help` says more. Manual: man loopfast.");

    RunOptions run_options;
    StatusOptions status_options;
    DemoOptions demo_options;
    WorkerOptions worker_options;
    guard::GuardOptions guard_options;
    DoctorOptions doctor_options;
    std::string lane;
    std::string shell;
    add_run(app, run_options);
    CLI::App* status_app =
        app.add_subcommand("status", "The connections of the processes that have loopfast");
    status_app->add_option("--pid", status_options.pid, "Only this process")
        ->check(a_number)
        ->type_name("PID");
    status_app->add_flag("--json", status_options.json, "JSON instead of a table");
    add_demo(app, demo_options);
    CLI::App* doctor_app = app.add_subcommand("doctor", "What stands for and against the fast path here");
    doctor_app
        ->add_option("--pid", doctor_options.pid, "Where this process lives: its namespaces and its limits")
        ->check(a_number)
        ->type_name("PID");
    doctor_app->add_flag("--json", doctor_options.json, "JSON instead of text");
    doctor_app->footer("\nExit status: 1 if something forbids the fast path, else 0.");
    add_guard(app, guard_options);
    CLI::App* completion = app.add_subcommand("completion", "Print the completion script of a shell");
    completion->add_option("SHELL", shell, "bash, zsh or fish")
        ->required()
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));
    add_help(app);
    add_worker(app, "demo-server", worker_options, lane);
    add_worker(app, "demo-client", worker_options, lane);

    std::vector<std::string> words = without_help_command({argv, argv + argc});
    // A mistyped subcommand: CLI11 would only say that one is required.
    if (words.size() > 1 && words[1][0] != '-' && !has_subcommand(app, words[1]))
        throw Failure(kUsage, fmt::format("unknown command '{}'{}\nSee `loopfast --help`.", words[1],
                                          did_you_mean(words[1], {"run", "status", "doctor", "guard", "demo",
                                                                  "completion", "help"})));
    if (words.size() > 1 && words[1] == "run") {
        const size_t begin = program_begin(*app.get_subcommand("run"), words);
        const size_t first = begin < words.size() && words[begin] == "--" ? begin + 1 : begin;
        run_options.command.assign(words.begin() + static_cast<long>(std::min(first, words.size())),
                                   words.end());
        words.resize(std::min(begin, words.size()));
    }
    try {
        words.erase(words.begin());
        std::reverse(words.begin(), words.end());  // as CLI11 wants it
        app.parse(words);
    } catch (const CLI::Success& asked) {
        return app.exit(asked);
    } catch (const CLI::ParseError& error) {
        throw Failure(kUsage, in_our_words(app, error));
    }
    check_process(status_options.pid);
    check_process(doctor_options.pid);

    if (app.got_subcommand("run")) {
        if (run_options.command.empty())
            throw Failure(kUsage,
                          "no program is named; expected `loopfast run [OPTIONS] -- PROGRAM [ARGUMENTS...]`");
        return run(run_options);
    }
    if (app.got_subcommand("status"))
        return status(status_options);
    if (app.got_subcommand("doctor"))
        return doctor(doctor_options);
    if (app.got_subcommand("guard"))
        return guard::run(guard_options);
    if (app.got_subcommand("demo"))
        return demo(demo_options);
    if (app.got_subcommand("completion")) {
        fmt::print("{}", completion_script(shell));
        return 0;
    }
    worker_options.ring = lane == "ring";
    return app.got_subcommand("demo-server") ? demo_server(worker_options) : demo_client(worker_options);
}

}  // namespace

}  // namespace loopfast::cli

int main(int argc, char** argv) {
    // Plain stdio below: what reports a failure must not throw one.
    try {
        const int result = loopfast::cli::main_(argc, argv);
        // A full disk or a closed pipe must not look like success.
        // (What was flushed before is gone from the buffer, and only the mark of its failure is left.)
        if (fflush(stdout) != 0 || ferror(stdout) != 0) {
            perror("loopfast: standard output");
            return loopfast::cli::kFailed;
        }
        return result;
    } catch (const loopfast::cli::Failure& failure) {
        fprintf(stderr, "loopfast: %s\n", failure.what());
        return failure.status();
    } catch (const std::exception& error) {
        fprintf(stderr, "loopfast: %s\n", error.what());
        return loopfast::cli::kFailed;
    }
}
