package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Set by the linker in a release: -X main.version=v1.2.3 -X main.commit=abc.
// Without them the build information of the Go tool is used.
var version, commit string

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show version, commit and Go version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, _ := debug.ReadBuildInfo()
			return writeVersion(cmd.OutOrStdout(), version, commit, info)
		},
	}
}

// writeVersion writes three lines of a name and a value.
func writeVersion(w io.Writer, stampedVersion, stampedCommit string, info *debug.BuildInfo) error {
	number, hash := build(stampedVersion, stampedCommit, info)
	_, err := fmt.Fprintf(w, "version %s\ncommit  %s\ngo      %s %s/%s\n", number, hash, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if err != nil {
		return fmt.Errorf("write version: %w", err)
	}
	return nil
}

// build returns the version and the commit that the program was built from, as
// far as they are known. The stamped values take precedence; info may be nil.
func build(stampedVersion, stampedCommit string, info *debug.BuildInfo) (number, hash string) {
	if info == nil {
		info = &debug.BuildInfo{}
	}
	number, hash = stampedVersion, stampedCommit
	if number == "" {
		number = info.Main.Version
	}
	if number == "" || number == "(devel)" {
		number = "development"
	}
	if hash != "" {
		return number, hash
	}
	hash = "unknown"
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			hash = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " with changes"
		}
	}
	return number, hash + modified
}

// thisBuild returns the version and the commit of the running program.
func thisBuild() (number, hash string) {
	info, _ := debug.ReadBuildInfo()
	return build(version, commit, info)
}

// number returns the version of the running program.
func number() string {
	n, _ := thisBuild()
	return n
}
