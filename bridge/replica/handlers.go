package replica

// Handle sets Options.Load and Options.OnChange, for a caller whose receivers
// are made after the group. Call it before [Group.Run].
func (g *Group) Handle(load func() Load, change func(Assignment)) {
	g.opts.Load, g.opts.OnChange = load, change
}
