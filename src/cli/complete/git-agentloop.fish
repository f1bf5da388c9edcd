# Completion of git-agentloop and of 'git agentloop', beside fish's own of git.
function __fish_git_agentloop
    set -l words (commandline -opc) (commandline -ct)
    if test "$words[1]" = git
        set words $words[2..]
    end
    git-agentloop complete -- $words[2..] 2>/dev/null
end
complete -c git-agentloop -f -a '(__fish_git_agentloop)'
complete -c git -n '__fish_seen_subcommand_from agentloop' -f -a '(__fish_git_agentloop)'
