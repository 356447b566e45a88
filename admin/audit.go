package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/postroom/postroom/queue"
)

func (h *handler) registerAudit() {
	op := h.operation(Operator, http.MethodGet, "/v1/audit", "listAudit", "Who changed what, when and from where", always)
	op.Description = "Changes and tries of the provider's settings, pauses, what was cancelled, changes of the log's level, and what was done to failed mail, newest first. Some 10,000 are kept; " +
		"of each token's cancels of single messages 100 an hour: the log has all of them."
	huma.Register(h.api, op, h.listAudit)
}

type auditInput struct {
	Cursor string `query:"cursor" maxLength:"64" doc:"What the page before gave as next; left out: the first page."`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"How many a page has at most."`
}

type auditOutput struct{ Body AuditPage }

func (h *handler) listAudit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	entries, err := h.queue.Audit(ctx, in.Cursor, in.Limit+1)
	if errors.Is(err, queue.ErrCursor) {
		return nil, badFilter("", []Fault{{"/cursor", "is not what an answer gave as next"}}, inQuery)
	} else if err != nil {
		return nil, h.refused(ctx, err)
	}
	more := len(entries) > in.Limit
	entries = entries[:min(len(entries), in.Limit)]
	page := AuditPage{Entries: make([]AuditEntry, len(entries))}
	for i, e := range entries {
		page.Entries[i] = AuditEntry{At: utc(e.At), By: e.By, From: e.From, Action: e.Action, Target: e.Target, Detail: e.Detail}
	}
	if more {
		page.Next = entries[len(entries)-1].ID
	}
	return &auditOutput{page}, nil
}
