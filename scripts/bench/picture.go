package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

// The picture: how many times as fast the main target is as each peer, in the
// core rows, as bars on a logarithmic scale that begin at 1. It brings its own
// background for light and for dark, as it can't know that of the page.

const (
	pictureWidth = 880
	labelWidth   = 218 // left of the bars
	valueWidth   = 56  // right of the longest bar
	barHeight    = 13
	rowGap       = 14
	headHeight   = 96
)

// barColors are told apart on white and on near-black.
var barColors = []string{"#4e8ecb", "#e08a2c", "#56a656", "#b277b8", "#d9635e", "#8a8f98"}

const pictureStyle = `
.page{fill:#ffffff} .text{fill:#1f2328} .soft{fill:#59636e} .line{stroke:#d1d9e0} .one{stroke:#1f2328}
@media (prefers-color-scheme: dark){
.page{fill:#0d1117} .text{fill:#f0f6fc} .soft{fill:#9198a1} .line{stroke:#3d444d} .one{stroke:#f0f6fc}}
text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;font-size:12px}
.title{font-size:16px;font-weight:600} .end{text-anchor:end} .mid{text-anchor:middle} .num{font-variant-numeric:tabular-nums}
`

// chart is what the picture shows: ratio[row][column].
type chart struct {
	title, note   string
	rows, columns []string
	ratio         [][]float64 // 0 where there is nothing
}

// chartOf gives the core rows of a result, beside the peers that store data.
func chartOf(res *result) chart {
	title := "sealdisk, encrypted, beside other NBD servers: how many times as fast"
	if strings.HasSuffix(res.Main, "-"+plain) {
		title = "sealdisk, not encrypted, beside other NBD servers: how many times as fast"
	}
	ch := chart{
		title: title,
		note: fmt.Sprintf("Operations a second, one connection over a unix socket, fio, files on tmpfs; medians of %d turns, %s. Right of 1×: sealdisk is faster.",
			res.Reps, res.Began.Format("2006-01-02")),
	}
	for _, c := range res.Columns {
		if p, ok := peerNamed(c); ok && p.image != "" {
			ch.columns = append(ch.columns, c)
		}
	}
	core := map[cell]bool{}
	for _, c := range setCells("core") {
		core[c] = true
	}
	for _, r := range res.Rows {
		if !core[r.Cell] {
			continue
		}
		line := make([]float64, len(ch.columns))
		for i, c := range ch.columns {
			line[i] = ratio(r.Median[res.Main].Ops, r.Median[c].Ops)
		}
		ch.rows, ch.ratio = append(ch.rows, r.Cell.explain()), append(ch.ratio, line)
	}
	return ch
}

// scale places ratios on the picture's width: powers of two from low to high.
type scale struct{ low, high float64 }

func (ch chart) scale() scale {
	s := scale{-1, 2}
	for _, line := range ch.ratio {
		for _, r := range line {
			if r > 0 {
				s.low = min(s.low, math.Floor(math.Log2(r)))
				s.high = max(s.high, math.Ceil(math.Log2(r)))
			}
		}
	}
	return s
}

func (s scale) x(r float64) float64 {
	return labelWidth + (math.Log2(r)-s.low)/(s.high-s.low)*(pictureWidth-labelWidth-valueWidth)
}

// svg draws the chart.
func (ch chart) svg() []byte {
	group := len(ch.columns)*barHeight + rowGap
	height := headHeight + len(ch.rows)*group + 24
	s := ch.scale()
	var b bytes.Buffer
	text := func(x, y float64, class, words string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" class="%s">%s</text>`+"\n", x, y, class, escape(words))
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		pictureWidth, height, pictureWidth, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", escape(ch.title), pictureStyle)
	fmt.Fprintf(&b, `<rect class="page" width="%d" height="%d"/>`+"\n", pictureWidth, height)
	text(16, 26, "title text", ch.title)
	text(16, 45, "soft", ch.note)
	x := 16.0
	for i, c := range ch.columns {
		fmt.Fprintf(&b, `<rect x="%.1f" y="56" width="11" height="11" rx="2" fill="%s"/>`+"\n", x, barColors[i%len(barColors)])
		text(x+16, 66, "text", legend(c))
		x += 36 + 6.1*float64(len(legend(c)))
	}
	bottom := float64(headHeight + len(ch.rows)*group)
	for p := s.low; p <= s.high; p++ {
		at := s.x(math.Exp2(p))
		if p != 0 {
			fmt.Fprintf(&b, `<line class="line" x1="%.1f" x2="%.1f" y1="%d" y2="%.1f"/>`+"\n", at, at, headHeight-6, bottom)
		}
		text(at, bottom+15, "soft mid num", fmt.Sprintf("%g×", math.Exp2(p)))
	}
	for i, row := range ch.rows {
		top := float64(headHeight + i*group)
		text(labelWidth-10, top+float64(group-rowGap)/2+4, "text end", row)
		for j, r := range ch.ratio[i] {
			if r > 0 {
				ch.bar(&b, s, top+float64(j*barHeight), r, barColors[j%len(barColors)])
			}
		}
	}
	fmt.Fprintf(&b, `<line class="one" stroke-width="1.5" x1="%.1f" x2="%.1f" y1="%d" y2="%.1f"/>`+"\n", s.x(1), s.x(1), headHeight-6, bottom)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// bar draws one ratio, to the right of 1 where sealdisk is faster.
func (ch chart) bar(b *bytes.Buffer, s scale, y, r float64, color string) {
	from, to := s.x(min(1, r)), s.x(max(1, r))
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" rx="1.5" fill="%s"/>`+"\n", from, y, max(to-from, 1), barHeight-2, color)
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="text num" style="font-size:10.5px">%s</text>`+"\n", to+5, y+barHeight-3.5, number(r))
}

func legend(peer string) string {
	return map[string]string{
		"nbdkit-file": "nbdkit file (plain text)", "nbdkit-luks": "nbdkit luks", "qemu-raw": "qemu-nbd raw (plain text)",
		"qemu-luks": "qemu-nbd luks", "go-nbd": "go-nbd + x/crypto/xts",
	}[peer]
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes everything
	return b.String()
}
