package bridge

import (
	"fmt"
	"math"
	"strings"
	"time"

	"plaspy-bridge/bridge/config"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/bridge/replica"
)

// openGroup joins this replica with those that share its prefix and NATS: they
// divide the devices and the budget.
func (b *Bridge) openGroup() error {
	b.budget.SetShare(0)
	b.group = replica.New(replica.Options{
		ID: b.cfg.ReplicaID, JS: b.pub.JetStream(), Subjects: b.pub.Subjects(), Replicas: b.cfg.StreamReplicas, Limit: b.cfg.RateLimit,
		Settings: b.cfg.Agreement(), Load: b.load,
		OnChange: func(a replica.Assignment) {
			b.budget.SetShare(a.Share)
			b.budget.FavorPosts(favor(a))
			if a.Suspended {
				return // Live holds the polls; what was learnt about the devices is kept
			}
			b.pool.Own(a.Owned)
		},
		OnThrottle: b.budget.ThrottleUntil,
		Log:        b.log.With("component", "replica"), Registerer: b.metrics,
	})
	b.budget.OnThrottle(b.group.Throttled)
	return nil
}

// load is what this replica would send in a minute if the budget let it.
func (b *Bridge) load() replica.Load {
	l := replica.Load{Polls: int(math.Ceil(float64(b.pool.Owned()) * float64(time.Minute) / float64(b.cfg.PollInterval)))}
	if b.consumer != nil {
		l.Posts = b.consumer.Wanted(b.budget.Waiting(plaspy.Post) > 0)
	}
	return l
}

// favor is how many posts go out for each poll while both wait. A replica's even
// part of the group's polls is what it shares with its posts one to one; what
// its share is larger than that, it was given for posts, which it makes for all.
func favor(a replica.Assignment) float64 {
	return 2*a.Share*float64(a.Members) - 1
}

// replicaHealth tells the health what part this replica has in the work. One
// that was told something else than the others works all the same, on what it
// was told.
func (b *Bridge) replicaHealth() {
	part := b.health.Part("replica")
	if trouble := b.group.Trouble(); trouble != "" {
		part.Fail(trouble)
	} else if others := disagreement(b.group.Differences()); others != "" {
		part.Degraded(others)
	} else {
		part.OK()
	}
}

// disagreement tells in one sentence which replicas were told other settings,
// or "".
func disagreement(list []replica.Difference) string {
	if len(list) == 0 {
		return ""
	}
	var texts []string
	for _, d := range list {
		var variables []string
		for _, name := range d.Settings {
			variables = append(variables, config.AgreementVariables(name))
		}
		texts = append(texts, fmt.Sprintf("replica %s was told other values of %s", d.Replica, strings.Join(variables, ", ")))
	}
	return strings.Join(texts, "; ")
}
