package xts

// MixColumns (FIPS 197 section 5.1.3) in the four variants that leaving
// ShiftRows out needs: mixColumnsJ serves the rounds r with r mod 4 = J. With u
// the byte one row below and t = q ^ u, the column's new byte is 2·t ^ u ^ (t
// two rows below).

func mixColumns0(q0, q1, q2, q3, q4, q5, q6, q7 uint64) (_, _, _, _, _, _, _, _ uint64) {
	u0 := below1(q0)
	u1 := below1(q1)
	u2 := below1(q2)
	u3 := below1(q3)
	u4 := below1(q4)
	u5 := below1(q5)
	u6 := below1(q6)
	u7 := below1(q7)
	t0 := q0 ^ u0
	t1 := q1 ^ u1
	t2 := q2 ^ u2
	t3 := q3 ^ u3
	t4 := q4 ^ u4
	t5 := q5 ^ u5
	t6 := q6 ^ u6
	t7 := q7 ^ u7
	return u0 ^ below2(t0) ^ t7,
		u1 ^ below2(t1) ^ t0 ^ t7,
		u2 ^ below2(t2) ^ t1,
		u3 ^ below2(t3) ^ t2 ^ t7,
		u4 ^ below2(t4) ^ t3 ^ t7,
		u5 ^ below2(t5) ^ t4,
		u6 ^ below2(t6) ^ t5,
		u7 ^ below2(t7) ^ t6
}

func mixColumns1(q0, q1, q2, q3, q4, q5, q6, q7 uint64) (_, _, _, _, _, _, _, _ uint64) {
	u0 := below1by1(q0)
	u1 := below1by1(q1)
	u2 := below1by1(q2)
	u3 := below1by1(q3)
	u4 := below1by1(q4)
	u5 := below1by1(q5)
	u6 := below1by1(q6)
	u7 := below1by1(q7)
	t0 := q0 ^ u0
	t1 := q1 ^ u1
	t2 := q2 ^ u2
	t3 := q3 ^ u3
	t4 := q4 ^ u4
	t5 := q5 ^ u5
	t6 := q6 ^ u6
	t7 := q7 ^ u7
	return u0 ^ below2by2(t0) ^ t7,
		u1 ^ below2by2(t1) ^ t0 ^ t7,
		u2 ^ below2by2(t2) ^ t1,
		u3 ^ below2by2(t3) ^ t2 ^ t7,
		u4 ^ below2by2(t4) ^ t3 ^ t7,
		u5 ^ below2by2(t5) ^ t4,
		u6 ^ below2by2(t6) ^ t5,
		u7 ^ below2by2(t7) ^ t6
}

func mixColumns2(q0, q1, q2, q3, q4, q5, q6, q7 uint64) (_, _, _, _, _, _, _, _ uint64) {
	u0 := below1by2(q0)
	u1 := below1by2(q1)
	u2 := below1by2(q2)
	u3 := below1by2(q3)
	u4 := below1by2(q4)
	u5 := below1by2(q5)
	u6 := below1by2(q6)
	u7 := below1by2(q7)
	t0 := q0 ^ u0
	t1 := q1 ^ u1
	t2 := q2 ^ u2
	t3 := q3 ^ u3
	t4 := q4 ^ u4
	t5 := q5 ^ u5
	t6 := q6 ^ u6
	t7 := q7 ^ u7
	return u0 ^ below2(t0) ^ t7,
		u1 ^ below2(t1) ^ t0 ^ t7,
		u2 ^ below2(t2) ^ t1,
		u3 ^ below2(t3) ^ t2 ^ t7,
		u4 ^ below2(t4) ^ t3 ^ t7,
		u5 ^ below2(t5) ^ t4,
		u6 ^ below2(t6) ^ t5,
		u7 ^ below2(t7) ^ t6
}

func mixColumns3(q0, q1, q2, q3, q4, q5, q6, q7 uint64) (_, _, _, _, _, _, _, _ uint64) {
	u0 := below1by3(q0)
	u1 := below1by3(q1)
	u2 := below1by3(q2)
	u3 := below1by3(q3)
	u4 := below1by3(q4)
	u5 := below1by3(q5)
	u6 := below1by3(q6)
	u7 := below1by3(q7)
	t0 := q0 ^ u0
	t1 := q1 ^ u1
	t2 := q2 ^ u2
	t3 := q3 ^ u3
	t4 := q4 ^ u4
	t5 := q5 ^ u5
	t6 := q6 ^ u6
	t7 := q7 ^ u7
	return u0 ^ below2by2(t0) ^ t7,
		u1 ^ below2by2(t1) ^ t0 ^ t7,
		u2 ^ below2by2(t2) ^ t1,
		u3 ^ below2by2(t3) ^ t2 ^ t7,
		u4 ^ below2by2(t4) ^ t3 ^ t7,
		u5 ^ below2by2(t5) ^ t4,
		u6 ^ below2by2(t6) ^ t5,
		u7 ^ below2by2(t7) ^ t6
}

// InvMixColumns is premix, then MixColumns: premix multiplies the columns by
// circ(5,0,4,0), that is adds 4 times the sum of the byte and the one two rows
// below. premixEven and premixOdd serve the rounds with even and odd r.

func premixEven(q0, q1, q2, q3, q4, q5, q6, q7 uint64) (_, _, _, _, _, _, _, _ uint64) {
	v0 := q0 ^ below2(q0)
	v1 := q1 ^ below2(q1)
	v2 := q2 ^ below2(q2)
	v3 := q3 ^ below2(q3)
	v4 := q4 ^ below2(q4)
	v5 := q5 ^ below2(q5)
	v6 := q6 ^ below2(q6)
	v7 := q7 ^ below2(q7)
	return q0 ^ v6,
		q1 ^ v6 ^ v7,
		q2 ^ v0 ^ v7,
		q3 ^ v1 ^ v6,
		q4 ^ v2 ^ v6 ^ v7,
		q5 ^ v3 ^ v7,
		q6 ^ v4,
		q7 ^ v5
}

func premixOdd(q0, q1, q2, q3, q4, q5, q6, q7 uint64) (_, _, _, _, _, _, _, _ uint64) {
	v0 := q0 ^ below2by2(q0)
	v1 := q1 ^ below2by2(q1)
	v2 := q2 ^ below2by2(q2)
	v3 := q3 ^ below2by2(q3)
	v4 := q4 ^ below2by2(q4)
	v5 := q5 ^ below2by2(q5)
	v6 := q6 ^ below2by2(q6)
	v7 := q7 ^ below2by2(q7)
	return q0 ^ v6,
		q1 ^ v6 ^ v7,
		q2 ^ v0 ^ v7,
		q3 ^ v1 ^ v6,
		q4 ^ v2 ^ v6 ^ v7,
		q5 ^ v3 ^ v7,
		q6 ^ v4,
		q7 ^ v5
}
