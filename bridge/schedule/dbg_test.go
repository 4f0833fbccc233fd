package schedule_test
import ("testing";"time";"plaspy-bridge/bridge/schedule")
func TestDbg(t *testing.T) {
	hz:=2*time.Hour
	r := budgeted(random(300, time.Minute, hz), 0.45, 30*time.Minute, hz)
	cnt:=map[string]int{}
	n:=0
	r.fault = func(now time.Duration, id string, o *schedule.Observation) {}
	var pp schedule.Policy
	r.at = func(now time.Duration, p schedule.Policy) { pp=p; n++; if n%50==0 && now>time.Hour { for i:=range 300 { e:=p.Explain(start.Add(now), name(i)); l:=e.Line; if len(l)>10 {l=l[:10]}; cnt[e.Reason.String()+" "+l]++ } } }
	log:=r.run(adaptive())
	_=log
	t.Log(cnt)
	for i:=range 5 { t.Log(pp.Explain(start.Add(hz), name(i)).Line) }
	t.Logf("%+v", pp.Stats(start.Add(hz)))
	gaps:=map[int][]float64{}; last:=map[int]time.Duration{}
	for _,q:=range log { if q.at>30*time.Minute { if l,ok:=last[q.device]; ok {gaps[q.device]=append(gaps[q.device],(q.at-l).Seconds())}}; last[q.device]=q.at }
	var m,v,k float64
	for _,g:=range gaps { for _,x:=range g {m+=x;v+=x*x;k++} }
	t.Log("gap mean",m/k,"E2/2E",v/m/2)
}
