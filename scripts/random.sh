# ./dev random [MINUTES]: random sequences of operations over kernel TCP and over loopfast, with seeds that nobody has tried.
#
# What differs is printed with the command that repeats it. CI runs fixed seeds: it judges a change, not a
# roll of dice. This verb is the hunt.
# shellcheck shell=bash

differential=build/tests/differential/differential
end=$((SECONDS + 60 * ${1:-10}))
seed=$(date +%s%N)
found=0
rounds=0
until [ $SECONDS -ge $end ]; do
    for how in "one v4" "before v6" "one mapped --swap --nonblocking" "before v4 --swap" "one v6 --nonblocking"; do
        [ $SECONDS -lt $end ] || break
        read -r processes family more <<<"$how"
        # shellcheck disable=SC2086
        "$differential" --case random --seeds "$seed-$((seed + 19))" --processes "$processes" --family "$family" $more || found=$((found + 1))
        seed=$((seed + 20))
        rounds=$((rounds + 1))
    done
done
echo "$((rounds * 20)) sequences in each lane; rounds that differed: $found"
[ $found -eq 0 ]
