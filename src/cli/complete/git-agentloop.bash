# Completion of git-agentloop; git's own completion calls _git_agentloop for 'git agentloop'.
__git_agentloop_words() {
    local IFS=$'\n' cur=${COMP_WORDS[COMP_CWORD]}
    COMPREPLY=($(git-agentloop complete -- "${@}" 2>/dev/null | cut -f1))
    # Nothing of ours: files are the shell's business.
    [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$cur"))
}
_git_agentloop() {
    local at=1
    while [ "$at" -lt "$COMP_CWORD" ] && [ "${COMP_WORDS[at]}" != agentloop ]; do at=$((at + 1)); done
    __git_agentloop_words "${COMP_WORDS[@]:at+1:COMP_CWORD-at}"
}
__git_agentloop_alone() {
    __git_agentloop_words "${COMP_WORDS[@]:1:COMP_CWORD}"
}
complete -o filenames -F __git_agentloop_alone git-agentloop
