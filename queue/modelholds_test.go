package queue

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/postroom/postroom/mail"
)

// attemptTime is how long an attempt of the model may take, by Redis's time.
const attemptTime = 5 * time.Minute

// hush is what the model knows of holds, pauses and probes: a naive ledger of what attempts came to, and of what operators asked
// for. It never looks into k:<key>. A scope is a limit key, a sender of an account, or Everything. Times are unix ms.
type hush struct {
	version string // of the active provider's settings
	holds   map[string]*held
	resumed map[string]held // holds that were resumed, since when nothing has gone
	pauses  map[string]int64
	aside   map[string]bool // senders of the account who are held, or were held and are paused, by themselves
}

// held is a hold that nothing has ended yet.
type held struct {
	until, refused  int64
	since           int64 // the first refusal since which nothing has gone
	reason, version string
	probe           string // the attempt that tells whether it is over; "" for none
	overdue         int64  // until when others wait for it
}

func newHush() *hush {
	return &hush{holds: map[string]*held{}, resumed: map[string]held{}, pauses: map[string]int64{}, aside: map[string]bool{}}
}

// changed notes that a provider's settings became the active ones. What was refused were others; but a mailbox that was too fast was
// so under any.
func (h *hush) changed(version string, p ActiveProvider, now int64) {
	if h.version == version {
		return
	}
	h.version = version
	for scope, of := range h.holds {
		if of.reason != "throttled" || scope == Everything {
			delete(h.holds, scope)
		}
	}
	for sender := range h.aside {
		h.aside[sender] = h.aside[sender] && bySelf(p, sender)
		h.forget(sender, now)
	}
}

// bySelf says whether a sender can be held alone, as others send by the same account.
func bySelf(p ActiveProvider, sender string) bool {
	return p.Keying == ByAccount && sender != "" && sender != p.Sender && sender != p.Account
}

// forget has a sender no longer stand for himself if he is neither held nor paused.
func (h *hush) forget(sender string, now int64) {
	if !h.aside[sender] || h.holds[sender] == nil && h.pauses[sender] <= now {
		delete(h.aside, sender)
	}
}

// binding gives the scopes whose silence binds a sender's mail.
func (h *hush) binding(key, sender string) []string {
	scopes := []string{key, Everything}
	if h.aside[sender] {
		scopes = append(scopes, sender)
	}
	return scopes
}

func (h *hush) silent(scope string, now int64) bool {
	of := h.holds[scope]
	return h.pauses[scope] > now || of != nil && of.until > now
}

// tried reports whether a hold's probe is out.
func (h *hush) tried(scope string, now int64) bool {
	of := h.holds[scope]
	return of != nil && of.until <= now && of.probe != "" && of.overdue > now
}

// began notes that an attempt has begun, and says why it should not have.
func (h *hush) began(attempt, key, sender string, now int64) string {
	for _, scope := range h.binding(key, sender) {
		switch of := h.holds[scope]; {
		case h.silent(scope, now):
			return scope + " is silent"
		case h.tried(scope, now):
			return scope + " waits for its probe"
		case of != nil:
			of.probe, of.overdue = attempt, now+attemptTime.Milliseconds()
		}
	}
	return ""
}

// refuses gives the scope that a settlement holds; "" for none. version is that of the settings which were refused.
func (h *hush) refuses(s *Settlement, p ActiveProvider, key, sender, version string) string {
	scope := key
	switch {
	case s.Hold == 0:
		return ""
	case p.Keying == ByMailbox && s.Scope == mail.ScopeProvider:
		scope = Everything
	case s.Scope != mail.ScopeProvider && s.Reason == "configuration" && bySelf(p, sender):
		scope = sender
	}
	if version != h.version && (s.Reason != "throttled" || scope == Everything) {
		return ""
	}
	return scope
}

// settled notes what an attempt came to that was known as the message's own until then.
func (h *hush) settled(s *Settlement, p ActiveProvider, key, sender, version string, now int64) {
	refused := h.refuses(s, p, key, sender, version)
	if refused != "" {
		h.refuse(refused, s, version, now)
		if refused != key && refused != Everything {
			h.aside[sender] = true
		}
	}
	// What other settings were refused says nothing of these.
	tells := s.Outcomes != nil && !s.Unused && (s.Hold == 0) == (refused == "")
	wider := refused == ""
	for _, scope := range []string{sender, key, Everything} {
		if tells && wider && scope != refused {
			delete(h.resumed, scope)
		}
		if of := h.holds[scope]; scope != refused && of != nil && of.probe == s.Attempt.ID {
			if tells && wider {
				delete(h.holds, scope)
				h.forget(scope, now)
			} else {
				of.probe = ""
			}
		}
		wider = wider || scope == refused
	}
}

func (h *hush) refuse(scope string, s *Settlement, version string, now int64) {
	of := h.holds[scope]
	if of == nil {
		of = &held{since: now}
		if before, ok := h.resumed[scope]; ok && before.version == h.version {
			of.since = before.since
		}
		h.holds[scope] = of
	}
	silence := s.Hold.Milliseconds()
	if of.until > now {
		if s.HoldMax > 0 || now+silence <= of.until {
			return
		}
	} else {
		if of.reason != s.Reason {
			of.refused = 0
		}
		silence = max(silence, min(silence<<of.refused, s.HoldMax.Milliseconds()))
		of.refused++
		of.probe = ""
	}
	of.until, of.reason, of.version = now+silence, s.Reason, version
}

// lost notes that an attempt was ended by the sweep.
func (h *hush) lost(attempt string) {
	for _, of := range h.holds {
		if of.probe == attempt {
			of.probe = ""
		}
	}
}

// scopes are all that can be held or paused.
var scopes = append([]string{Everything, account, otherAccount}, senders...)

// checkHolds checks that k:<key> tells of holds what happened, and of probes only such as are open or overdue.
func (m *model) checkHolds(rt *rapid.T, b *books) {
	now := m.server.now.UnixMilli()
	for _, scope := range scopes {
		k := func(field string) string { return b.server.HGet(b.prefix+"k:"+scope, field) }
		until, probe := int64(atoi(k("until"))), ""
		if k("version") != m.hush.version && (k("reason") != "throttled" || scope == Everything) {
			until = 0 // other settings were refused
		}
		if attempt, overdue, ok := strings.Cut(k("probe"), "\t"); ok && until > 0 && int64(atoi(overdue)) > now {
			if probe = attempt; !b.open[probe] {
				rt.Fatalf("%s is the probe of %q, and is not under way\n%s", probe, scope, m.dump())
			}
		}
		want := cmp.Or(m.hush.holds[scope], &held{})
		if !m.hush.tried(scope, now) {
			want = &held{until: want.until, refused: want.refused, since: want.since}
		}
		if until != want.until || until > 0 && (int64(atoi(k("refused"))) != want.refused || int64(atoi(k("since"))) != want.since) || probe != want.probe {
			rt.Fatalf("%q is held until %d (%s times), its probe %q; want %+v\n%s", scope, until, k("refused"), probe, want, m.dump())
		}
		if m.hush.aside[scope] && !b.aside[scope] && (m.hush.holds[scope] != nil || m.hush.pauses[scope] > now) {
			rt.Fatalf("%s is held or paused by himself, and not set aside\n%s", scope, m.dump())
		}
	}
	for member := range b.due {
		sender, ok := strings.CutPrefix(member, "s:")
		if !ok {
			continue
		}
		at, _ := b.server.ZScore(b.prefix+"due", member)
		if !b.aside[sender] || int64(at) > now && !m.hush.silent(sender, now) && !m.hush.tried(sender, now) {
			rt.Fatalf("%s is to come back at %.0f; set aside: %v, and silent: no\n%s", sender, at, b.aside[sender], m.dump())
		}
	}
}

// ask checks what people are told of batches, holds and pauses.
func (m *model) ask(rt *rapid.T) {
	m.compare(rt, true)
	now, listed := m.server.now.UnixMilli(), map[string]bool{}
	all, err := m.queue.Mailboxes(context.Background())
	m.must(rt, err)
	for _, of := range all {
		listed[of.Key] = true
		var until, paused int64
		for _, scope := range []string{of.Key, Everything} {
			paused = max(paused, m.hush.pauses[scope])
			if h := m.hush.holds[scope]; h != nil {
				until = max(until, h.until)
			}
		}
		if held := until > now; held && (of.Hold == nil || of.Hold.Until.UnixMilli() != until) || !held && of.Hold != nil && !of.Hold.Trying {
			rt.Fatalf("%s is held until %d, it says: %+v", of.Key, until, of.Hold)
		}
		if (paused > now) != (of.Pause != nil) || of.Pause != nil && of.Pause.Until.UnixMilli() != paused {
			rt.Fatalf("%s is paused until %d, it says: %+v", of.Key, paused, of.Pause)
		}
	}
	for sender := range m.hush.aside {
		if h := m.hush.holds[sender]; h != nil && !listed[sender] {
			rt.Fatalf("%s is held by himself, and not listed", sender)
		}
	}
}

// operator pauses or resumes something.
func (m *model) operator(rt *rapid.T) {
	now, some := m.server.now.UnixMilli(), scopes
	if held := slices.Sorted(maps.Keys(m.hush.holds)); len(held) > 0 && rapid.Bool().Draw(rt, "held") {
		some = held
	}
	scope := rapid.SampledFrom(some).Draw(rt, "scope")
	if d := rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(rt, "pause"); d > 0 {
		until, err := m.queue.Pause(context.Background(), scope, d, "asked", Author{Name: "ada"})
		m.must(rt, err)
		m.hush.forget(scope, now)
		m.hush.pauses[scope] = until.UnixMilli()
		return
	}
	_, err := m.queue.Resume(context.Background(), scope, Author{Name: "ada"})
	m.must(rt, err)
	delete(m.hush.pauses, scope)
	if of := m.hush.holds[scope]; of != nil {
		m.hush.resumed[scope] = *of
	}
	if bySelf(m.rate.active, scope) {
		delete(m.hush.resumed, scope)
	}
	delete(m.hush.holds, scope)
	delete(m.hush.aside, scope)
}

// fence has an attempt come to its point of no return.
func (m *model) fence(rt *rapid.T) {
	if len(m.lost) > 0 && rapid.Bool().Draw(rt, "too late") {
		m.afterwards(rt, m.lost[m.pick(rt, m.lost)])
		return
	}
	a := m.open[m.pick(rt, m.open)]
	m.must(rt, a.Fence())
	m.fenced[a.ID] = true
}

// swept checks what a sweep made of the attempts that it has ended: those for which gone is true.
func (m *model) swept(rt *rapid.T, gone func(*Attempt) bool) {
	for turn, a := range m.open {
		if !gone(a) {
			continue
		}
		delete(m.open, turn)
		delete(m.underway, a.MessageID)
		m.lost[turn], m.gone[a.ID] = a, true
		m.rate.settled(a, m.server.now, true)
		m.hush.lost(a.ID)
		want, class := Queued, mail.Unknown
		switch hold := m.options.OnUnknown[a.Kind] == Hold; {
		case hold && !m.fenced[a.ID]:
			class = mail.Temporary
		case hold:
			want = Failed
		}
		r := m.record(rt, a.MessageID)
		if strings.Count(r.history, ";worker_gone;") >= 10 {
			want = Failed // whoever dies is not fed for ever
		}
		if !strings.Contains(cmp.Or(r.head[headMarks], "p"), "p") {
			want = stateOf[r.head[headState]] // late outcomes of others have ended it
		}
		if state := stateOf[r.head[headState]]; state != want || state != Delivered && r.head[headClass] != class.String() {
			rt.Fatalf("%s is %s as %s after its worker was gone, want %s as %s; its fence was passed: %v",
				a.MessageID, state, r.head[headClass], want, class, m.fenced[a.ID])
		}
		m.afterwards(rt, a)
	}
}

// afterwards has an attempt come to its fence that was taken for lost.
func (m *model) afterwards(rt *rapid.T, a *Attempt) {
	before := m.server.Dump()
	if err := a.Fence(); err == nil && (a.twice || a.lease.over.Load()) || a.twice && !errors.Is(err, ErrTaken) {
		rt.Fatalf("the fence of %s, which was taken for lost: %v", a.MessageID, err)
	}
	if m.server.Dump() != before {
		rt.Fatalf("the fence of %s, which was taken for lost, has changed something", a.MessageID)
	}
}

// selection draws a filter of failed messages, and gives those that it selects.
func (m *model) selection(rt *rapid.T) (f FailedFilter, ids []string) {
	var fits func(id string, r *record) bool
	switch by := rapid.SampledFrom([]string{"", "kind", "mailbox", "class", "id"}).Draw(rt, "by"); by {
	case "kind":
		f.Kind = rapid.SampledFrom(mail.Kinds()).Draw(rt, "kind")
		fits = func(_ string, r *record) bool { return kindOf[r.head[headKind]] == f.Kind }
	case "mailbox":
		f.Mailbox = rapid.SampledFrom(senders).Draw(rt, "mailbox")
		fits = func(id string, _ *record) bool { return cmp.Or(m.senders[id], m.rate.active.Sender) == f.Mailbox }
	case "class":
		f.Classes = []mail.Class{rapid.SampledFrom([]mail.Class{mail.Permanent, mail.Unknown}).Draw(rt, "class")}
		fits = func(_ string, r *record) bool { return r.head[headClass] == f.Classes[0].String() }
	case "id":
		f.IDs = []string{rapid.SampledFrom(m.messages).Draw(rt, "message")}
		fits = func(id string, _ *record) bool { return id == f.IDs[0] }
	default:
		fits = func(string, *record) bool { return true }
	}
	for _, id := range m.messages {
		if r := m.record(rt, id); r != nil && stateOf[r.head[headState]] == Failed && fits(id, r) {
			ids = append(ids, id)
		}
	}
	return f, ids
}

// administrator requeues or deletes failed messages.
func (m *model) administrator(rt *rapid.T) {
	if failed, _ := m.server.ZMembers(m.queue.key("failed")); len(failed) == 0 {
		rt.Skip()
	}
	f, ids := m.selection(rt)
	remove := rapid.IntRange(0, 3).Draw(rt, "delete") == 0
	act, cancelled := m.queue.Requeue, 0
	if remove {
		act = m.queue.DeleteFailed
	} else {
		n := len(ids)
		ids = slices.DeleteFunc(ids, func(id string) bool {
			batch := m.inBatch[id]
			return batch != "" && m.server.HGet(m.queue.key("b:", batch), "cancelled") != ""
		})
		cancelled = n - len(ids)
	}
	step, err := act(context.Background(), f, SelectionOptions{})
	m.must(rt, err)
	if step.Done != len(ids) || step.Cancelled != cancelled || step.Next != "" {
		rt.Fatalf("%+v of %+v, want %v, and %d of cancelled batches", step, f, ids, cancelled)
	}
	for _, id := range ids {
		if m.deleted[id] = remove; !remove {
			clear(m.refused[id]) // they are offered it again
			for _, a := range m.lost {
				m.former[a.ID] = m.former[a.ID] || a.MessageID == id
			}
		}
	}
}

// record gives a message's record; nil if there is none.
func (m *model) record(rt *rapid.T, id string) *record {
	raw, err := m.server.Get(m.queue.key("m:", id))
	if err != nil {
		return nil
	}
	r, err := parseRecord(raw)
	m.must(rt, err)
	return r
}

// trouble is what the provider has against mail for the time being.
type trouble struct {
	reason string // of the holds that follow; "" for none
	scope  mail.Scope
	sender string // whose mail alone meets it, or ""
}

func (m *model) otherTrouble(rt *rapid.T) {
	m.trouble = rapid.SampledFrom([]trouble{
		{"configuration", mail.ScopeMailbox, "b@example.com"},
		{"configuration", mail.ScopeMailbox, "c@example.com"},
		{"configuration", mail.ScopeMailbox, ""},
		{"configuration", mail.ScopeProvider, ""},
		{"throttled", mail.ScopeMailbox, ""},
		{"throttled", mail.ScopeProvider, ""},
		{"unreachable", mail.ScopeProvider, ""},
		{},
	}).Draw(rt, "trouble")
}

func (t trouble) meets(sender string) bool {
	return t.reason != "" && (t.sender == "" || t.sender == sender)
}

// refuse makes a settlement one that holds what the trouble reaches.
func (t trouble) refuse(rt *rapid.T, s *Settlement) {
	s.Hold, s.Reason, s.Scope, s.Unused = 10*time.Second, t.reason, t.scope, t.reason == "unreachable"
	s.HoldMax = rapid.SampledFrom([]time.Duration{time.Minute, 0}).Draw(rt, "longest")
	s.Class = map[string]mail.Class{"throttled": mail.Throttled, "configuration": mail.Configuration, "unreachable": mail.Temporary}[t.reason]
	for i := range s.Outcomes {
		if o := &s.Outcomes[i]; o.Class == mail.Throttled {
			o.Class, o.Scope = s.Class, s.Scope
		}
	}
	if rapid.IntRange(0, 5).Draw(rt, "unknown too") == 0 {
		s.Verdict, s.Class, s.Counted = GiveUp, mail.Unknown, true
	}
}
