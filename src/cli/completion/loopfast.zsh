#compdef loopfast
# zsh completion for loopfast. Installed with the package, or: source <(loopfast completion zsh)

_loopfast() {
    local -a commands=(
        'run:start a program with loopfast in it'
        'status:the connections of the processes that have loopfast'
        'doctor:what stands for and against the fast path here'
        'guard:watch packet filters and captures (root)'
        'demo:measure what loopfast gives on this machine'
        'completion:print the completion script of a shell'
        'help:what there is, or what a command does'
    )
    local context state line
    _arguments -C '--help[what there is]' '--version[the version]' '1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe command commands ;;
        argument)
            case $words[1] in
                run)
                    _arguments \
                        '--spin[how long a wait may poll]:spin:(off auto)' \
                        '--threshold[bytes before a connection is moved over]:bytes:' \
                        '--log[where to log]:file:_files' \
                        '--config[configuration file]:file:_files -g "*.toml"' \
                        '--explain[print what would be done]' \
                        '--force[start programs that loopfast cannot work in]' \
                        '--help[what there is]' \
                        '(-):program:_command_names -e' \
                        '*::arguments:_normal'
                    ;;
                guard) _arguments '--quiet[print nothing but mistakes]' '--help[what there is]' ;;
                status | doctor) _arguments '--pid[only this process]:pid:_pids' '--json[JSON]' '--help[what there is]' ;;
                demo)
                    _arguments '--rounds[alternations]:number:' '--seconds[of each measurement]:seconds:' \
                        '--json[JSON]' '--help[what there is]'
                    ;;
                help) _arguments '1:command:(run status doctor guard demo completion)' ;;
                completion) _arguments '--help[what there is]' '1:shell:(bash zsh fish)' ;;
            esac
            ;;
    esac
}

if [ "$funcstack[1]" = "_loopfast" ]; then
    _loopfast "$@"
else
    compdef _loopfast loopfast
fi
