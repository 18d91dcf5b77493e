# fish completion for loopfast. Installed with the package, or: loopfast completion fish | source

complete -c loopfast -f
complete -c loopfast -n __fish_use_subcommand -a run -d 'start a program with loopfast in it'
complete -c loopfast -n __fish_use_subcommand -a status -d 'connections of the processes that have loopfast'
complete -c loopfast -n __fish_use_subcommand -a doctor -d 'what stands for and against the fast path here'
complete -c loopfast -n __fish_use_subcommand -a guard -d 'watch packet filters and captures (root)'
complete -c loopfast -n __fish_use_subcommand -a demo -d 'measure what loopfast gives on this machine'
complete -c loopfast -n __fish_use_subcommand -a completion -d 'print the completion script of a shell'
complete -c loopfast -n __fish_use_subcommand -a help -d 'what there is, or what a command does'
complete -c loopfast -n __fish_use_subcommand -l version -d 'the version'
complete -c loopfast -l help -d 'what there is'

complete -c loopfast -n '__fish_seen_subcommand_from run' -l spin -x -a 'off auto' -d 'how long a wait may poll'
complete -c loopfast -n '__fish_seen_subcommand_from run' -l threshold -x -d 'bytes before moving over'
complete -c loopfast -n '__fish_seen_subcommand_from run' -l log -r -F -d 'where to log'
complete -c loopfast -n '__fish_seen_subcommand_from run' -l config -r -F -d 'configuration file'
complete -c loopfast -n '__fish_seen_subcommand_from run' -l explain -d 'print what would be done'
complete -c loopfast -n '__fish_seen_subcommand_from run' -l force -d 'start programs loopfast cannot work in'
complete -c loopfast -n '__fish_seen_subcommand_from run' -x -a '(__fish_complete_subcommand)'

complete -c loopfast -n '__fish_seen_subcommand_from status doctor' -l pid -x -a '(__fish_complete_pids)' -d 'only this'
complete -c loopfast -n '__fish_seen_subcommand_from guard' -l quiet -d 'print nothing but mistakes'
complete -c loopfast -n '__fish_seen_subcommand_from status doctor' -l json -d 'JSON'

complete -c loopfast -n '__fish_seen_subcommand_from demo' -l rounds -x -d 'alternations'
complete -c loopfast -n '__fish_seen_subcommand_from demo' -l seconds -x -d 'of each measurement'
complete -c loopfast -n '__fish_seen_subcommand_from demo' -l json -d 'JSON'

complete -c loopfast -n '__fish_seen_subcommand_from help' -a 'run status doctor guard demo completion'

complete -c loopfast -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
