package engine

import (
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/argoproj/argo-cd/v3/util/session"
	"github.com/argoproj/argo-cd/v3/util/settings"

	"github.com/slipwayhq/slipway/internal/wholefile"
)

// writeToken leaves a token of the platform's account in file, mode 0600. The
// one that is there stays if Argo CD still accepts it.
func writeToken(mgr *settings.SettingsManager, storage session.UserStateStorage, file string) error {
	sessions := session.NewSessionManager(mgr, nil, "", nil, storage)
	if old, err := os.ReadFile(file); err == nil {
		if _, _, err := sessions.Parse(strings.TrimSpace(string(old))); err == nil {
			return nil
		}
	}
	id := rand.Text()
	token, err := sessions.Create(platformAccount+":"+string(settings.AccountCapabilityApiKey), 0, id)
	if err != nil {
		return fmt.Errorf("create a token for account %s: %w", platformAccount, err)
	}
	err = mgr.UpdateAccount(platformAccount, func(a *settings.Account) error {
		a.Tokens = []settings.Token{{ID: id, IssuedAt: time.Now().UTC().Unix()}}
		return nil
	})
	if err != nil {
		return fmt.Errorf("register the token of account %s: %w", platformAccount, err)
	}
	return wholefile.Write(file, []byte(token+"\n"), 0o600)
}
