package message

// resultHeaders is more than the headers of a result take, in bytes.
const resultHeaders = 8 << 10

// Outcome is the outcome of a message while it is being recorded. A message that
// was posted is recorded by its result; one that was given up by its letter
// first, and then by its result, which names the letter.
//
// Next returns the publication to store, and Stored or TooLarge takes the
// stream's answer. Once Next returns nil, Reply is the publication to Reply-To, and the
// message can leave the inbound stream. A process that dies between leaves the
// message in the stream: the next process decides again, and the ids of letter
// and result keep the streams from taking either twice.
type Outcome struct {
	w *Writer
	m *Message
	d Decision

	letter *Publication // nil if the message was posted, or the letter is stored
	result *Publication
	seq    uint64 // of the letter
	stored bool   // the result is stored, or needs no storing
	short  brevity
	reply  string
}

// Outcome makes the outcome of a decision. refused is the reason why the message's
// Reply-To cannot be used, if it has one.
func (w *Writer) Outcome(m *Message, d Decision) (o *Outcome, refused string) {
	o = &Outcome{w: w, m: m, d: d}
	o.reply, refused = m.ReplyTo(w.Subjects)
	o.Restart()
	return o, refused
}

// Restart begins again: letter and result are stored once more.
func (o *Outcome) Restart() {
	o.letter, o.seq, o.short, o.stored = nil, 0, whole, false
	if o.Posted() {
		o.write()
		return
	}
	o.letter, o.result = o.w.Letter(o.m, &o.d), nil
}

// Posted reports whether the API took the message.
func (o *Outcome) Posted() bool { return o.d.Reason == "" }

// Next is the publication to be stored next, nil if there is none.
func (o *Outcome) Next() *Publication {
	switch {
	case o.letter != nil:
		return o.letter
	case o.stored || o.m.Address.Kind == Unknown:
		return nil
	}
	return o.result
}

// Stored notes that a stream took the next publication, as its message seq.
func (o *Outcome) Stored(seq uint64) {
	if o.letter == nil {
		o.stored = true
		return
	}
	o.letter, o.seq = nil, seq
	o.write()
}

// write makes the result, with as much in it as the server accepts.
func (o *Outcome) write() {
	for ; ; o.short++ {
		o.result = o.w.result(o.m, &o.d, o.seq, o.short)
		if limit := o.w.MaxPayload; limit == 0 || len(o.result.Body)+resultHeaders <= limit || o.short+1 >= briefLevels {
			return
		}
	}
}

// TooLarge makes the next publication smaller after its stream refused it for its
// size, or for that of its headers. It reports false if it cannot be smaller.
func (o *Outcome) TooLarge(headersOnly bool) bool {
	if o.letter != nil {
		return cutLetter(o.letter, headersOnly)
	}
	if o.short++; o.short >= briefLevels {
		o.short = briefLevels - 1
		return false
	}
	o.write()
	return true
}

// Reply is the publication to the message's Reply-To. It is nil if there is none, or
// if letter and result are not stored yet.
func (o *Outcome) Reply() *Publication {
	if o.reply == "" || o.Next() != nil {
		return nil
	}
	return &Publication{Subject: o.reply, Header: o.result.Header, Body: o.result.Body}
}

// Replied notes that the reply was sent.
func (o *Outcome) Replied() { o.reply = "" }

// Size is the memory that the outcome and its message keep in use, in bytes,
// roughly.
func (o *Outcome) Size() int {
	n := o.m.Size() + len(o.d.Response) + len(o.d.Detail)
	if o.result != nil {
		n += len(o.result.Body)
	}
	return n
}
