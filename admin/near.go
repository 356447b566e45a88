package admin

import "strings"

// nearest gives the candidate that was probably meant by name, or "" if none is much like it. Case and underscores count
// for nothing: replyTo is reply_to.
func nearest(name string, candidates []string) string {
	if len(name) > 32 {
		return "" // no field is nearly as long, and the distance would take its time
	}
	name = plain(name)
	best, least := "", len(name)/3+1
	for _, candidate := range candidates {
		if d := distance(name, plain(candidate)); d < least {
			best, least = candidate, d
		}
	}
	return best
}

func plain(name string) string {
	return strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
}

// distance is Levenshtein's: how many letters to insert, delete or replace.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
