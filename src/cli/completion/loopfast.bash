# bash completion for loopfast. Installed with the package, or: source <(loopfast completion bash)

# What follows `loopfast run [options] --` is another command's line, and completed as that command's.
_loopfast_of_program() {
    local first=$1
    if declare -F _command_offset >/dev/null; then
        _command_offset "$first"
    elif [ "$COMP_CWORD" -eq "$first" ]; then
        mapfile -t COMPREPLY < <(compgen -c -- "${COMP_WORDS[COMP_CWORD]}")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}

_loopfast() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words= i
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "run status doctor guard demo completion help --help --version" -- "$word")
        return
    fi
    case ${COMP_WORDS[1]} in
        run)
            for ((i = 2; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                    --) _loopfast_of_program $((i + 1)); return ;;
                    --spin | --threshold | --log | --config) i=$((i + 1)) ;;
                    -* | =) ;;
                    *) _loopfast_of_program "$i"; return ;;
                esac
            done
            case $before in
                --spin) words="off auto" ;;
                --threshold) return ;;
                --log | --config)
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    [ "$before" = --log ] && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W stderr -- "$word")
                    return
                    ;;
                *)
                    words="--spin --threshold --log --config --explain --force --help --"
                    [[ $word == -* ]] || { _loopfast_of_program "$COMP_CWORD"; return; }
                    ;;
            esac
            ;;
        status | doctor)
            if [ "$before" = --pid ]; then
                words=$(cd /proc && echo [0-9]*)
            else
                words="--pid --json --help"
            fi
            ;;
        guard) words="--quiet --help" ;;
        demo) words="--rounds --seconds --json --help" ;;
        completion) words="bash zsh fish --help" ;;
        help) [ "$COMP_CWORD" -ne 2 ] || words="run status doctor guard demo completion" ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _loopfast loopfast
