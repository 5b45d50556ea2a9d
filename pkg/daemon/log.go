package daemon

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// NewLogger makes the logger of one process: JSON lines on stderr, from level
// (debug, info, warn or error; "" is info) on.
func NewLogger(process, level string) (*zap.Logger, error) {
	if level == "" {
		level = "info"
	}
	at, err := zap.ParseAtomicLevel(level)
	if err != nil {
		return nil, usage("use --log-level debug, info, warn or error", "log level: %v", err)
	}
	cfg := zap.NewProductionConfig()
	cfg.Level = at
	cfg.Sampling = nil // nothing is logged per I/O, so nothing needs to be dropped
	cfg.DisableStacktrace = true
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	log, err := cfg.Build()
	if err != nil {
		return nil, err
	}
	return log.Named(process), nil
}
