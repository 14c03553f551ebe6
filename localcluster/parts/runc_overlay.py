"""The one source file of runc that is replaced when runc is built here.

runc applies seccomp profiles through libseccomp, whose headers most machines lack; built without
it, it refuses every container that has a profile, and kubelet gives every pod sandbox one. The
replacement lets such containers start without their profile. That is acceptable on a test node and
nowhere else; the published runc, which is preferred, applies them.
"""

FILE = "libcontainer/seccomp/seccomp_unsupported.go"
"""Path inside the module."""

TEXT = """package seccomp

import (
	"errors"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Enabled says that no profile is ever applied.
const Enabled = false

// InitSeccomp takes any profile and applies none.
func InitSeccomp(_ *configs.Seccomp) (int, error) {
	return -1, nil
}

// FlagSupported refuses flags: a profile that asks for one expects it to work.
func FlagSupported(_ specs.LinuxSeccompFlag) error {
	return errors.New("this runc was built without seccomp")
}

// Version names no library.
func Version() (uint, uint, uint) {
	return 0, 0, 0
}
"""
