package engine

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/argoproj/argo-cd/v3/util/session"
	"github.com/argoproj/argo-cd/v3/util/settings"
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
	return writeFile(file, token+"\n")
}

// writeFile replaces file as a whole, mode 0600.
func writeFile(file, content string) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file))
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.WriteString(content); err != nil {
		tmp.Close()
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), file)
}
